#include "kernels/deform_conv.hpp"

#include <cmath>

#include "bench/bench.hpp"
#include "tests/tensors.hpp"

// Deformable convolution of volumes of extent^3 voxels, batch 1, 16 to 16 channels, 3^3 taps with padding 1,
// offsets up to half a voxel and a mask. Bytes: the tensors that are read and written, once each.

namespace cinnabar {
namespace {

constexpr std::int64_t kChannels = 16;
constexpr std::int64_t kTaps = 27;

struct Setup {
  Tensor input, offset, mask, weight, output;
  DeformConvOptions options{.padding = {1, 1, 1}};
  bench::Work work(std::initializer_list<const Tensor*> tensors) const {
    double bytes = 0;
    for (const Tensor* tensor : tensors) bytes += static_cast<double>(tensor->bytes());
    return {bytes, 2.0 * static_cast<double>(output.numel() * kChannels * kTaps)};
  }
};

Setup set_up(std::int64_t n, Device device) {
  Setup s;
  s.input = testing::random_tensor({1, kChannels, n, n, n}, 1).to(device);
  s.offset = testing::random_tensor({1, 3 * kTaps, n, n, n}, 2, -0.5, 0.5).to(device);
  s.mask = testing::random_tensor({1, kTaps, n, n, n}, 3, 0, 1).to(device);
  s.weight = testing::random_tensor({kChannels, kChannels, 3, 3, 3}, 4).to(device);
  s.output = testing::random_tensor({1, kChannels, n, n, n}, 5).to(device);
  return s;
}

void deform_conv_forward(benchmark::State& state, Device device) {
  Setup s = set_up(state.range(0), device);
  bench::measure(state, device, s.work({&s.input, &s.offset, &s.mask, &s.weight, &s.output}), [&] {
    deform_conv_on(device).forward(s.input, s.offset, s.mask, s.weight, {}, s.options, s.output);
  });
}
CINNABAR_BENCH(deform_conv_forward, 16, 32, 64);

/// The convolution with the same taps in the places where they are without offsets.
void convolution(benchmark::State& state, Device device) {
  Setup s = set_up(state.range(0), device);
  const Conv3dOptions options{.padding = {1, 1, 1}};
  bench::measure(state, device, s.work({&s.input, &s.weight, &s.output}),
                 [&] { conv3d_on(device).forward(s.input, s.weight, {}, options, s.output); });
}
CINNABAR_RIVAL(deform_conv_forward, convolution, 16, 32, 64);

/// One thread, every output summed over taps and channels, bounds checked at every corner.
void plain_loop(benchmark::State& state, Device device) {
  if (!device.is_cpu()) return state.SkipWithError("runs on the CPU");
  Setup s = set_up(state.range(0), device);
  const std::int64_t n = state.range(0), volume = n * n * n;
  const float *input = s.input.data<float>(), *offset = s.offset.data<float>();
  const float *mask = s.mask.data<float>(), *weight = s.weight.data<float>();
  float* output = s.output.data<float>();
  const auto sample = [&](const float* image, std::int64_t p, std::int64_t tap) {
    const std::int64_t at[3] = {p / (n * n), p / n % n, p % n}, k[3] = {tap / 9, tap / 3 % 3, tap % 3};
    std::int64_t cell[3];
    float f[3];
    for (int axis = 0; axis < 3; ++axis) {
      const float place = static_cast<float>(at[axis] - 1 + k[axis]) + offset[(3 * tap + axis) * volume + p];
      f[axis] = place - std::floor(place);
      cell[axis] = static_cast<std::int64_t>(std::floor(place));
    }
    float sum = 0.0f;
    for (int corner = 0; corner < 8; ++corner) {
      float share = 1.0f;
      std::int64_t voxel = 0;
      for (int axis = 0; axis < 3; ++axis) {
        const int high = (corner >> axis) & 1;
        const std::int64_t index = cell[axis] + high;
        share *= index < 0 || index >= n ? 0.0f : (high != 0 ? f[axis] : 1.0f - f[axis]);
        voxel = voxel * n + index;
      }
      if (share != 0.0f) sum += share * image[voxel];
    }
    return sum * mask[tap * volume + p];
  };
  bench::measure(state, device, s.work({&s.input, &s.offset, &s.mask, &s.weight, &s.output}), [&] {
    std::fill_n(output, kChannels * volume, 0.0f);
    for (std::int64_t c = 0; c < kChannels; ++c) {
      for (std::int64_t tap = 0; tap < kTaps; ++tap) {
        for (std::int64_t p = 0; p < volume; ++p) {
          const float value = sample(input + c * volume, p, tap);
          for (std::int64_t o = 0; o < kChannels; ++o) {
            output[o * volume + p] += weight[(o * kChannels + c) * kTaps + tap] * value;
          }
        }
      }
    }
  });
}
CINNABAR_RIVAL(deform_conv_forward, plain_loop, 16, 32);

void deform_conv_backward_weight(benchmark::State& state, Device device) {
  Setup s = set_up(state.range(0), device);
  Tensor grad = Tensor::empty_like(s.weight);
  bench::measure(state, device, s.work({&s.output, &s.input, &s.offset, &s.mask, &grad}), [&] {
    deform_conv_on(device).backward_weight(s.output, s.input, s.offset, s.mask, s.options, grad);
  });
}
CINNABAR_BENCH(deform_conv_backward_weight, 16, 32, 64);

/// The gradients of offset and mask, and not that of the input, or the other way round.
void backward_sampling(benchmark::State& state, Device device, bool of_input) {
  Setup s = set_up(state.range(0), device);
  Tensor grad_input, grad_offset, grad_mask;
  bench::Work work = s.work({&s.output, &s.weight, &s.offset, &s.mask});
  if (of_input) {
    grad_input = Tensor::empty_like(s.input);
    work.bytes += static_cast<double>(grad_input.bytes());
  } else {
    grad_offset = Tensor::empty_like(s.offset);
    grad_mask = Tensor::empty_like(s.mask);
    work.bytes += static_cast<double>(s.input.bytes() + grad_offset.bytes() + grad_mask.bytes());
  }
  bench::measure(state, device, work, [&] {
    deform_conv_on(device).backward_sampling(s.output, s.input, s.offset, s.mask, s.weight, s.options,
                                             grad_input, grad_offset, grad_mask);
  });
}

void deform_conv_backward_input(benchmark::State& state, Device device) {
  backward_sampling(state, device, true);
}
CINNABAR_BENCH(deform_conv_backward_input, 16, 32, 64);

void deform_conv_backward_offset(benchmark::State& state, Device device) {
  backward_sampling(state, device, false);
}
CINNABAR_BENCH(deform_conv_backward_offset, 16, 32, 64);

}  // namespace
}  // namespace cinnabar
