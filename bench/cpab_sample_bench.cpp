#include "autograd/cpab_sample.hpp"

#include <vector>

#include "autograd/elementwise.hpp"
#include "autograd/grid_sample.hpp"
#include "autograd/layout.hpp"
#include "bench/bench.hpp"
#include "tests/tensors.hpp"

// Images of one channel warped by smooth fields in float32: 12 x 12 boxes in 2-D, 4 x 4 x 4 in 3-D. The
// extent is that of the image. The rival makes the grid of moved points first, keeps it and samples there.
// Bytes: images and results, each once.

namespace cinnabar {
namespace {

constexpr GridSampleOptions kSampling{Interpolation::linear, Boundary::border, true};

struct Setup {
  CpabSpace space;
  Variable image;
  Variable theta;
  Variable points;  ///< [voxels, d]: what the rival starts from
  Tensor seed;

  Setup(int dims, std::int64_t extent, Device device)
      : space(dims == 2 ? std::vector<std::int32_t>{12, 12} : std::vector<std::int32_t>{4, 4, 4}, {},
              DType::f32, device) {
    const std::vector<std::int64_t> extents(static_cast<std::size_t>(dims), extent);
    const Shape shape = dims == 2 ? Shape{1, 1, extent, extent} : Shape{1, 1, extent, extent, extent};
    image = Variable(testing::random_tensor(shape, 1).to(device), true);
    theta = Variable(space.sample_prior(1, 0.3, 0.15, {.seed = 7}), true);
    points = Variable(cpab_grid_points(extents, true, DType::f32, device));
    seed = Tensor::full(shape, 1.0, DType::f32, device);
  }
  double bytes() const { return static_cast<double>(2 * seed.bytes()); }
};

using Warp = Variable (*)(const Setup& setup);

Variable fused(const Setup& s) {
  return cpab_sample(s.image, s.theta, s.space, kSampling);
}

Variable composed(const Setup& s) {
  Shape shape{1};
  for (int axis = 2; axis < s.seed.rank(); ++axis) shape = shape.append(s.seed.shape(axis));
  const Variable grid = affine(cpab_flow(s.points, s.theta, s.space), 2.0, -1.0);
  return grid_sample(s.image, reshape(grid, shape.append(s.space.dims())), kSampling);
}

void forward(benchmark::State& state, Device device, int dims, Warp warp) {
  const Setup s(dims, state.range(0), device);
  const NoGrad quiet;
  bench::measure(state, device, {s.bytes(), 0}, [&] { warp(s); });
}

void backward(benchmark::State& state, Device device, int dims, Warp warp) {
  Setup s(dims, state.range(0), device);
  const Variable warped = warp(s);
  bench::measure(state, device, {1.5 * s.bytes(), 0}, [&] {
    s.image.clear_grad();
    s.theta.clear_grad();
    warped.backward(s.seed, true);
  });
}

void cpab_sample_forward_2d(benchmark::State& state, Device device) {
  forward(state, device, 2, fused);
}
void cpab_sample_forward_3d(benchmark::State& state, Device device) {
  forward(state, device, 3, fused);
}
void cpab_sample_backward_2d(benchmark::State& state, Device device) {
  backward(state, device, 2, fused);
}
void cpab_sample_backward_3d(benchmark::State& state, Device device) {
  backward(state, device, 3, fused);
}
CINNABAR_BENCH(cpab_sample_forward_2d, 512);
CINNABAR_BENCH(cpab_sample_forward_3d, 128);
CINNABAR_BENCH(cpab_sample_backward_2d, 512);
CINNABAR_BENCH(cpab_sample_backward_3d, 128);

void unfused_forward_2d(benchmark::State& state, Device device) {
  forward(state, device, 2, composed);
}
void unfused_forward_3d(benchmark::State& state, Device device) {
  forward(state, device, 3, composed);
}
void unfused_backward_2d(benchmark::State& state, Device device) {
  backward(state, device, 2, composed);
}
void unfused_backward_3d(benchmark::State& state, Device device) {
  backward(state, device, 3, composed);
}
CINNABAR_RIVAL(cpab_sample_forward_2d, unfused_forward_2d, 512);
CINNABAR_RIVAL(cpab_sample_forward_3d, unfused_forward_3d, 128);
CINNABAR_RIVAL(cpab_sample_backward_2d, unfused_backward_2d, 512);
CINNABAR_RIVAL(cpab_sample_backward_3d, unfused_backward_3d, 128);

}  // namespace
}  // namespace cinnabar
