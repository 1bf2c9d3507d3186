#include "kernels/gaussian_smooth.hpp"

#include <algorithm>
#include <cmath>

#include "bench/bench.hpp"
#include "tests/tensors.hpp"

// Smoothing cubes of extent^3 voxels with sigma 2 (radius 8) along every axis. Bytes: one read and one write
// per axis. Flops: a product and a sum per tap.

namespace cinnabar {
namespace {

constexpr double kSigma = 2.0;
constexpr double kTaps = 17.0;

bench::Work work_of(const Tensor& image) {
  return {6.0 * static_cast<double>(image.bytes()), 6.0 * kTaps * static_cast<double>(image.numel())};
}

void gaussian_smooth_forward(benchmark::State& state, Device device) {
  const std::int64_t n = state.range(0);
  const Tensor image = testing::random_tensor({1, 1, n, n, n}, 1).to(device);
  Tensor smooth = Tensor::empty_like(image);
  bench::measure(state, device, work_of(image), [&] {
    gaussian_smooth_on(device).forward(image, {kSigma, kSigma, kSigma}, smooth);
  });
}
CINNABAR_BENCH(gaussian_smooth_forward, 64, 128, 256);

/// Voxel by voxel and tap by tap along each axis, on one thread.
void plain_loop(benchmark::State& state, Device device) {
  if (!device.is_cpu()) return state.SkipWithError("runs on the CPU");
  const std::int64_t n = state.range(0);
  Tensor from = testing::random_tensor({1, 1, n, n, n}, 1);
  Tensor to = Tensor::empty_like(from);
  bench::measure(state, device, work_of(from), [&] {
    const std::vector<double> weights = gaussian_weights(kSigma);
    for (const std::int64_t stride : {std::int64_t{1}, n, n * n}) {
      const float* in = from.data<float>();
      float* out = to.data<float>();
      for (std::int64_t i = 0; i < n * n * n; ++i) {
        const std::int64_t at = i / stride % n;
        float sum = 0.0f;
        for (std::int64_t k = -8; k <= 8; ++k) {
          const std::int64_t j = std::clamp<std::int64_t>(at + k, 0, n - 1);
          sum +=
              static_cast<float>(weights[static_cast<std::size_t>(std::abs(k))]) * in[i + (j - at) * stride];
        }
        out[i] = sum;
      }
      std::swap(from, to);
    }
  });
}
CINNABAR_RIVAL(gaussian_smooth_forward, plain_loop, 64, 128);

void gaussian_smooth_backward(benchmark::State& state, Device device) {
  const std::int64_t n = state.range(0);
  const Tensor grad = testing::random_tensor({1, 1, n, n, n}, 1).to(device);
  Tensor grad_input = Tensor::empty_like(grad);
  bench::measure(state, device, work_of(grad), [&] {
    gaussian_smooth_on(device).backward(grad, {kSigma, kSigma, kSigma}, grad_input);
  });
}
CINNABAR_BENCH(gaussian_smooth_backward, 64, 128, 256);

}  // namespace
}  // namespace cinnabar
