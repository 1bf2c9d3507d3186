#include "kernels/affine_grid.hpp"

#include "bench/bench.hpp"
#include "tests/tensors.hpp"

// Sampling grids of extent^3 points, 12 bytes each, written once or read once.

namespace cinnabar {
namespace {

Tensor grid_of(std::int64_t extent, Device device) {
  return Tensor::full({1, extent, extent, extent, 3}, 0.5, DType::f32, device);
}

void affine_grid_forward(benchmark::State& state, Device device) {
  const Tensor theta = testing::random_tensor({1, 3, 4}, 1).to(device);
  Tensor grid = grid_of(state.range(0), device);
  bench::measure(state, device, {static_cast<double>(grid.bytes()), 0},
                 [&] { affine_grid_on(device).forward(theta, false, grid); });
}
CINNABAR_BENCH(affine_grid_forward, 64, 128, 256);

/// Setting the same bytes to zero.
void zero(benchmark::State& state, Device device) {
  Tensor grid = grid_of(state.range(0), device);
  bench::measure(state, device, {static_cast<double>(grid.bytes()), 0}, [&] { grid.fill(0.0); });
}
CINNABAR_RIVAL(affine_grid_forward, zero, 64, 128, 256);

void affine_grid_backward(benchmark::State& state, Device device) {
  const Tensor grad = grid_of(state.range(0), device);
  Tensor grad_theta = Tensor::empty({1, 3, 4}, DType::f32, device);
  bench::measure(state, device, {static_cast<double>(grad.bytes()), 0},
                 [&] { affine_grid_on(device).backward(grad, false, grad_theta); });
}
CINNABAR_BENCH(affine_grid_backward, 64, 128, 256);

}  // namespace
}  // namespace cinnabar
