#include "kernels/matmul.hpp"

#include "bench/bench.hpp"
#include "tests/tensors.hpp"

// Products of square matrices of the given extent: 2 extent^3 floating-point operations, three matrices
// moved.

namespace cinnabar {
namespace {

bench::Work work(std::int64_t n) {
  const auto extent = static_cast<double>(n);
  return {12.0 * extent * extent, 2.0 * extent * extent * extent};
}

void matmul_square(benchmark::State& state, Device device) {
  const std::int64_t n = state.range(0);
  const Tensor a = testing::random_tensor({n, n}, 1).to(device);
  const Tensor b = testing::random_tensor({n, n}, 2).to(device);
  Tensor c = Tensor::empty({n, n}, DType::f32, device);
  bench::measure(state, device, work(n), [&] { matmul_on(device).forward(a, false, b, false, c); });
}
CINNABAR_BENCH(matmul_square, 128, 512, 1024, 2048);

/// One thread, rows of the result as running sums: what a compiler makes of three loops.
void three_loops(benchmark::State& state, Device device) {
  if (!device.is_cpu()) return state.SkipWithError("runs on the CPU only");
  const std::int64_t n = state.range(0);
  const Tensor a = testing::random_tensor({n, n}, 1);
  const Tensor b = testing::random_tensor({n, n}, 2);
  Tensor c = Tensor::empty({n, n});
  bench::measure(state, device, work(n), [&] {
    c.fill(0.0);
    const float* left = a.data<float>();
    const float* right = b.data<float>();
    float* out = c.data<float>();
    for (std::int64_t r = 0; r < n; ++r) {
      for (std::int64_t k = 0; k < n; ++k) {
        for (std::int64_t j = 0; j < n; ++j) out[r * n + j] += left[r * n + k] * right[k * n + j];
      }
    }
  });
}
CINNABAR_RIVAL(matmul_square, three_loops, 128, 512);

/// Many small products, as in a batch of affine transforms.
void matmul_batch_of_4x4(benchmark::State& state, Device device) {
  const std::int64_t n = state.range(0);
  const Tensor a = testing::random_tensor({n, 4, 4}, 1).to(device);
  const Tensor b = testing::random_tensor({n, 4, 4}, 2).to(device);
  Tensor c = Tensor::empty({n, 4, 4}, DType::f32, device);
  bench::measure(state, device, {static_cast<double>(3 * a.bytes()), 128.0 * static_cast<double>(n)},
                 [&] { matmul_on(device).forward(a, false, b, false, c); });
}
CINNABAR_BENCH(matmul_batch_of_4x4, 10000);

}  // namespace
}  // namespace cinnabar
