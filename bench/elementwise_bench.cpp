#include "kernels/elementwise.hpp"

#include "bench/bench.hpp"
#include "tests/tensors.hpp"

// Pointwise arithmetic on cubes of extent^3 voxels. Bytes: every operand once, every result once.

namespace cinnabar {
namespace {

Tensor volume(std::int64_t extent, Device device, std::int64_t channels = 1) {
  return testing::random_tensor({1, channels, extent, extent, extent}, 1, 0.1, 1.0).to(device);
}

void unary(benchmark::State& state, Device device, Unary op) {
  const Tensor x = volume(state.range(0), device);
  Tensor y = Tensor::empty_like(x);
  bench::measure(state, device, {2.0 * static_cast<double>(x.bytes()), 0},
                 [&] { elementwise_on(device).unary(op, x, 0.5, 0.0, y); });
}

void elementwise_scale(benchmark::State& state, Device device) {
  unary(state, device, Unary::affine);
}
CINNABAR_BENCH(elementwise_scale, 64, 128, 256);

/// The library's copy of the same bytes.
void copy(benchmark::State& state, Device device) {
  const Tensor x = volume(state.range(0), device);
  Tensor y = Tensor::empty_like(x);
  bench::measure(state, device, {2.0 * static_cast<double>(x.bytes()), 0}, [&] { y.copy_from(x); });
}
CINNABAR_RIVAL(elementwise_scale, copy, 64, 128, 256);

void elementwise_exp(benchmark::State& state, Device device) {
  unary(state, device, Unary::exp);
}
CINNABAR_BENCH(elementwise_exp, 64, 128);

void elementwise_mul(benchmark::State& state, Device device) {
  const Tensor x = volume(state.range(0), device);
  const Tensor y = volume(state.range(0), device);
  Tensor z = Tensor::empty_like(x);
  bench::measure(state, device, {3.0 * static_cast<double>(x.bytes()), 0},
                 [&] { elementwise_on(device).binary(Binary::mul, x, y, z); });
}
CINNABAR_BENCH(elementwise_mul, 64, 128, 256);

/// One weight a channel, broadcast over the voxels.
void elementwise_prelu(benchmark::State& state, Device device) {
  const Tensor x = volume(state.range(0), device, 8);
  const Tensor weight = testing::random_tensor({8, 1, 1, 1}, 2).to(device);
  Tensor y = Tensor::empty_like(x);
  bench::measure(state, device, {2.0 * static_cast<double>(x.bytes()), 0},
                 [&] { elementwise_on(device).binary(Binary::prelu, x, weight, y); });
}
CINNABAR_BENCH(elementwise_prelu, 64, 128);

}  // namespace
}  // namespace cinnabar
