#include "kernels/reduce.hpp"

#include "bench/bench.hpp"
#include "tests/tensors.hpp"

// Reductions of cubes of extent^3 voxels. Bytes: every input element once.

namespace cinnabar {
namespace {

void reduce(benchmark::State& state, Device device, Reduction op, const Shape& input, const Shape& output) {
  const Tensor x = testing::random_tensor(input, 1).to(device);
  Tensor y = Tensor::empty(output, DType::f32, device);
  bench::measure(state, device, {static_cast<double>(x.bytes()), 0},
                 [&] { reduce_on(device).forward(op, x, {}, 1.0, y); });
}

void reduce_sum(benchmark::State& state, Device device) {
  const std::int64_t n = state.range(0);
  reduce(state, device, Reduction::sum, {1, 1, n, n, n}, {1, 1, 1, 1, 1});
}
CINNABAR_BENCH(reduce_sum, 64, 128, 256);

/// One thread, one accumulator, in order.
void serial_loop(benchmark::State& state, Device device) {
  if (!device.is_cpu()) return state.SkipWithError("runs on the CPU only");
  const std::int64_t n = state.range(0);
  const Tensor x = testing::random_tensor({n, n, n}, 1);
  bench::measure(state, device, {static_cast<double>(x.bytes()), 0}, [&] {
    double sum = 0.0;
    const float* values = x.data<float>();
    for (std::int64_t i = 0; i < x.numel(); ++i) sum += static_cast<double>(values[i]);
    benchmark::DoNotOptimize(sum);
  });
}
CINNABAR_RIVAL(reduce_sum, serial_loop, 64, 128, 256);

/// A bias gradient: one sum a channel.
void reduce_sum_to_channels(benchmark::State& state, Device device) {
  const std::int64_t n = state.range(0);
  reduce(state, device, Reduction::sum, {2, 8, n, n, n}, {1, 8, 1, 1, 1});
}
CINNABAR_BENCH(reduce_sum_to_channels, 64, 128);

/// The innermost axis is kept.
void reduce_sum_over_rows(benchmark::State& state, Device device) {
  const std::int64_t n = state.range(0);
  reduce(state, device, Reduction::sum, {n * n, n}, {1, n});
}
CINNABAR_BENCH(reduce_sum_over_rows, 64, 128, 256);

void reduce_maximum(benchmark::State& state, Device device) {
  const std::int64_t n = state.range(0);
  reduce(state, device, Reduction::maximum, {n, n, n}, {1, 1, 1});
}
CINNABAR_BENCH(reduce_maximum, 64, 128);

}  // namespace
}  // namespace cinnabar
