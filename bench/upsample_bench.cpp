#include "kernels/upsample.hpp"

#include "bench/bench.hpp"
#include "kernels/affine_grid.hpp"
#include "kernels/grid_sample.hpp"
#include "tests/tensors.hpp"

// Doubling a cube to extent^3 voxels, trilinear. Bytes: image and result once each.

namespace cinnabar {
namespace {

struct Setup {
  Tensor small;
  Tensor large;
  bench::Work work() const { return {static_cast<double>(small.bytes() + large.bytes()), 0}; }
};

Setup set_up(std::int64_t extent, Device device) {
  const std::int64_t half = extent / 2;
  return {testing::random_tensor({1, 1, half, half, half}, 1).to(device),
          testing::random_tensor({1, 1, extent, extent, extent}, 2).to(device)};
}

void upsample_forward(benchmark::State& state, Device device) {
  Setup s = set_up(state.range(0), device);
  bench::measure(state, device, s.work(), [&] { upsample_on(device).forward(s.small, {}, s.large); });
}
CINNABAR_BENCH(upsample_forward, 64, 128, 256);

/// The same values by sampling along an identity grid, which is made beforehand.
void grid_sample(benchmark::State& state, Device device) {
  Setup s = set_up(state.range(0), device);
  const std::int64_t extent = state.range(0);
  const Tensor identity = Tensor::from<float>({1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0}, {1, 3, 4}).to(device);
  Tensor grid = Tensor::empty({1, extent, extent, extent, 3}, DType::f32, device);
  affine_grid_on(device).forward(identity, false, grid);
  const GridSampleOptions border{Interpolation::linear, Boundary::border, false};
  bench::measure(state, device, s.work(),
                 [&] { grid_sample_on(device).forward(s.small, grid, border, s.large); });
}
CINNABAR_RIVAL(upsample_forward, grid_sample, 64, 128, 256);

void upsample_backward(benchmark::State& state, Device device) {
  Setup s = set_up(state.range(0), device);
  bench::measure(state, device, s.work(), [&] { upsample_on(device).backward(s.large, {}, s.small); });
}
CINNABAR_BENCH(upsample_backward, 64, 128, 256);

}  // namespace
}  // namespace cinnabar
