#include "kernels/cast.hpp"

#include "bench/bench.hpp"
#include "tests/tensors.hpp"

// Conversion of extent^3 elements between f32 and f16. Bytes: source and target once each.

namespace cinnabar {
namespace {

void convert(benchmark::State& state, Device device, DType from, DType to) {
  const std::int64_t extent = state.range(0);
  const Tensor x = testing::random_tensor({extent, extent, extent}, 1).to(from).to(device);
  Tensor y = Tensor::empty(x.shape(), to, device);
  bench::measure(state, device, {static_cast<double>(x.bytes() + y.bytes()), 0},
                 [&] { cast_on(device).convert(x, y); });
}

void cast_to_half(benchmark::State& state, Device device) {
  convert(state, device, DType::f32, DType::f16);
}
CINNABAR_BENCH(cast_to_half, 64, 128, 256);

void cast_from_half(benchmark::State& state, Device device) {
  convert(state, device, DType::f16, DType::f32);
}
CINNABAR_BENCH(cast_from_half, 64, 128, 256);

/// Tensor's own conversion: one thread of the host, whatever the device.
void tensor_to(benchmark::State& state, Device device) {
  const std::int64_t extent = state.range(0);
  const Tensor x = testing::random_tensor({extent, extent, extent}, 1).to(device);
  bench::measure(state, device, {1.5 * static_cast<double>(x.bytes()), 0},
                 [&] { benchmark::DoNotOptimize(x.to(DType::f16)); });
}
CINNABAR_RIVAL(cast_to_half, tensor_to, 64, 128, 256);

}  // namespace
}  // namespace cinnabar
