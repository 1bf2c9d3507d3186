#include "kernels/layout.hpp"

#include "bench/bench.hpp"
#include "tests/tensors.hpp"

// Strided copies of cubes of extent^3 voxels. Bytes: every element read once and written once.

namespace cinnabar {
namespace {

void copy_through(benchmark::State& state, Device device, const Tensor& source, const View& from,
                  const Shape& extents) {
  const Tensor x = source.to(device);
  Tensor y = Tensor::empty(extents, DType::f32, device);
  bench::measure(state, device, {2.0 * static_cast<double>(y.bytes()), 0},
                 [&] { layout_on(device).copy(x, from, extents, View::contiguous(extents), y); });
}

/// Components innermost, [D, H, W, 3], to components outermost.
void layout_permute_field(benchmark::State& state, Device device) {
  const std::int64_t n = state.range(0);
  copy_through(state, device, testing::random_tensor({n, n, n, 3}, 1), {0, {1, 3 * n * n, 3 * n, 3}},
               {3, n, n, n});
}
CINNABAR_BENCH(layout_permute_field, 64, 128);

void layout_transpose(benchmark::State& state, Device device) {
  const std::int64_t n = state.range(0);
  copy_through(state, device, testing::random_tensor({n, n * n}, 1), {0, {1, n * n}}, {n * n, n});
}
CINNABAR_BENCH(layout_transpose, 64, 128, 256);

/// Row by row of the result, one thread.
void plain_loop(benchmark::State& state, Device device) {
  if (!device.is_cpu()) return state.SkipWithError("runs on the CPU only");
  const std::int64_t n = state.range(0);
  const Tensor x = testing::random_tensor({n, n * n}, 1);
  Tensor y = Tensor::empty({n * n, n});
  bench::measure(state, device, {2.0 * static_cast<double>(x.bytes()), 0}, [&] {
    const float* in = x.data<float>();
    float* out = y.data<float>();
    for (std::int64_t r = 0; r < n * n; ++r) {
      for (std::int64_t c = 0; c < n; ++c) out[r * n + c] = in[c * n * n + r];
    }
  });
}
CINNABAR_RIVAL(layout_transpose, plain_loop, 64, 128, 256);

void layout_crop(benchmark::State& state, Device device) {
  const std::int64_t n = state.range(0);
  const std::int64_t side = n - 8;
  copy_through(state, device, testing::random_tensor({n, n, n}, 1), {4 * (n * n + n + 1), {n * n, n, 1}},
               {side, side, side});
}
CINNABAR_BENCH(layout_crop, 64, 128, 256);

}  // namespace
}  // namespace cinnabar
