#include "kernels/grid_sample.hpp"

#include <cmath>

#include "bench/bench.hpp"
#include "kernels/affine_grid.hpp"
#include "tests/tensors.hpp"

// Trilinear sampling of cubes of extent^3 voxels along a rotated, shrunken grid, zeros outside. Bytes: grid,
// image and result once each.

namespace cinnabar {
namespace {

struct Setup {
  Tensor input;
  Tensor grid;
  Tensor output;
  double grid_bytes() const { return static_cast<double>(grid.bytes()); }
  double image_bytes() const { return static_cast<double>(input.bytes()); }
};

Setup set_up(std::int64_t extent, std::int64_t channels, Device device) {
  const float c = 0.9f * std::cos(0.1f);
  const float s = 0.9f * std::sin(0.1f);
  const Tensor theta =
      Tensor::from<float>({c, -s, 0, 0.01f, s, c, 0, -0.02f, 0, 0.1f, 0.9f, 0.03f}, {1, 3, 4}).to(device);
  Setup setup;
  setup.input = testing::random_tensor({1, channels, extent, extent, extent}, 1).to(device);
  setup.grid = Tensor::empty({1, extent, extent, extent, 3}, DType::f32, device);
  affine_grid_on(device).forward(theta, false, setup.grid);
  setup.output = Tensor::empty_like(setup.input);
  return setup;
}

void forward(benchmark::State& state, Device device, std::int64_t channels) {
  Setup s = set_up(state.range(0), channels, device);
  bench::measure(state, device, {s.grid_bytes() + 2 * s.image_bytes(), 0},
                 [&] { grid_sample_on(device).forward(s.input, s.grid, {}, s.output); });
}

void grid_sample_forward(benchmark::State& state, Device device) {
  forward(state, device, 1);
}
CINNABAR_BENCH(grid_sample_forward, 64, 128, 256);

void grid_sample_forward_3_channels(benchmark::State& state, Device device) {
  forward(state, device, 3);
}
CINNABAR_BENCH(grid_sample_forward_3_channels, 64, 128);

/// One thread, bounds checked at every corner: how a first version looks.
void plain_loop(benchmark::State& state, Device device) {
  if (!device.is_cpu()) return state.SkipWithError("runs on the CPU");
  Setup s = set_up(state.range(0), 1, device);
  const std::int64_t n = state.range(0);
  const float* image = s.input.data<float>();
  const float* grid = s.grid.data<float>();
  float* out = s.output.data<float>();
  const auto voxel = [&](std::int64_t z, std::int64_t y, std::int64_t x) {
    const bool inside = x >= 0 && y >= 0 && z >= 0 && x < n && y < n && z < n;
    return inside ? image[(z * n + y) * n + x] : 0.0f;
  };
  bench::measure(state, device, {s.grid_bytes() + 2 * s.image_bytes(), 0}, [&] {
    for (std::int64_t i = 0; i < n * n * n; ++i) {
      float at[3], cell[3], f[3];
      for (int axis = 0; axis < 3; ++axis) {
        at[axis] = ((grid[3 * i + axis] + 1.0f) * static_cast<float>(n) - 1.0f) * 0.5f;
        cell[axis] = std::floor(at[axis]);
        f[axis] = at[axis] - cell[axis];
      }
      float sum = 0.0f;
      for (int k = 0; k < 8; ++k) {
        const int dx = k & 1, dy = (k >> 1) & 1, dz = k >> 2;
        sum += (dx != 0 ? f[0] : 1 - f[0]) * (dy != 0 ? f[1] : 1 - f[1]) * (dz != 0 ? f[2] : 1 - f[2]) *
               voxel(static_cast<std::int64_t>(cell[2]) + dz, static_cast<std::int64_t>(cell[1]) + dy,
                     static_cast<std::int64_t>(cell[0]) + dx);
      }
      out[i] = sum;
    }
  });
}
CINNABAR_RIVAL(grid_sample_forward, plain_loop, 64, 128);

void grid_sample_backward_input(benchmark::State& state, Device device) {
  Setup s = set_up(state.range(0), 1, device);
  Tensor grad = Tensor::empty_like(s.input);
  bench::measure(state, device, {s.grid_bytes() + 2 * s.image_bytes(), 0},
                 [&] { grid_sample_on(device).backward_input(s.input, s.grid, {}, grad); });
}
CINNABAR_BENCH(grid_sample_backward_input, 64, 128);

void grid_sample_backward_grid(benchmark::State& state, Device device) {
  Setup s = set_up(state.range(0), 1, device);
  Tensor grad = Tensor::empty_like(s.grid);
  bench::measure(state, device, {2 * s.grid_bytes() + 2 * s.image_bytes(), 0},
                 [&] { grid_sample_on(device).backward_grid(s.output, s.input, s.grid, {}, grad); });
}
CINNABAR_BENCH(grid_sample_backward_grid, 64, 128);

}  // namespace
}  // namespace cinnabar
