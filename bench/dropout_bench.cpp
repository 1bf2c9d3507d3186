#include "kernels/dropout.hpp"

#include "bench/bench.hpp"
#include "kernels/elementwise.hpp"
#include "tests/tensors.hpp"

// Dropout of extent^3 elements. Bytes: input and result once each.

namespace cinnabar {
namespace {

void dropout_apply(benchmark::State& state, Device device) {
  const std::int64_t extent = state.range(0);
  const Tensor x = testing::random_tensor({extent, extent, extent}, 1).to(device);
  Tensor y = Tensor::empty_like(x);
  bench::measure(state, device, {2.0 * static_cast<double>(x.bytes()), 0}, [&] {
    dropout_on(device).apply({1, 2, 0}, 0.2, x, y);
  });
}
CINNABAR_BENCH(dropout_apply, 64, 128, 256);

/// With a stored mask: random numbers, comparison, product.
void stored_mask(benchmark::State& state, Device device) {
  const std::int64_t extent = state.range(0);
  const Tensor x = testing::random_tensor({extent, extent, extent}, 1).to(device);
  const Tensor p = Tensor::full({1}, 0.2).to(device);
  Tensor mask = Tensor::empty_like(x);
  Tensor y = Tensor::empty_like(x);
  bench::measure(state, device, {2.0 * static_cast<double>(x.bytes()), 0}, [&] {
    random_on(device).uniform({1, 2, 0}, 0.0, 1.0, mask);
    elementwise_on(device).binary(Binary::greater_equal, mask, p, mask);
    elementwise_on(device).binary(Binary::mul, x, mask, y);
    elementwise_on(device).unary(Unary::affine, y, 1.25, 0.0, y);
  });
}
CINNABAR_RIVAL(dropout_apply, stored_mask, 64, 128, 256);

}  // namespace
}  // namespace cinnabar
