#include "autograd/gradient_penalty.hpp"

#include "autograd/elementwise.hpp"
#include "autograd/layout.hpp"
#include "autograd/reduce.hpp"
#include "bench/bench.hpp"
#include "tests/tensors.hpp"

// Smoothness of a displacement field on extent^3 voxels. Bytes: the field once forward; field and gradient
// backward.

namespace cinnabar {
namespace {

Tensor field_on(Device device, std::int64_t extent) {
  return testing::random_tensor({1, 3, extent, extent, extent}, 1).to(device);
}

void gradient_penalty_forward(benchmark::State& state, Device device) {
  const Tensor field = field_on(device, state.range(0));
  Tensor loss = Tensor::empty({}, DType::f32, device);
  bench::measure(state, device, {static_cast<double>(field.bytes()), 0}, [&] {
    gradient_penalty_on(device).forward(field, {1, 1, 1}, loss);
  });
}
CINNABAR_BENCH(gradient_penalty_forward, 64, 128);

void gradient_penalty_backward(benchmark::State& state, Device device) {
  const Tensor field = field_on(device, state.range(0));
  const Tensor grad_loss = Tensor::full({}, 1.0, DType::f32, device);
  Tensor grad_field = Tensor::empty_like(field);
  bench::measure(state, device, {2.0 * static_cast<double>(field.bytes()), 0}, [&] {
    gradient_penalty_on(device).backward(grad_loss, field, {1, 1, 1}, grad_field);
  });
}
CINNABAR_BENCH(gradient_penalty_backward, 64, 128);

/// Slices, differences and dot products, axis by axis.
void slices(benchmark::State& state, Device device) {
  const Variable field(field_on(device, state.range(0)));
  const std::int64_t extent = state.range(0);
  bench::measure(state, device, {static_cast<double>(field.value().bytes()), 0}, [&] {
    for (int axis = 2; axis < 5; ++axis) {
      const Variable d = slice(field, axis, 1, extent) - slice(field, axis, 0, extent - 1);
      benchmark::DoNotOptimize(dot(d, d));
    }
  });
}
CINNABAR_RIVAL(gradient_penalty_forward, slices, 64, 128);

}  // namespace
}  // namespace cinnabar
