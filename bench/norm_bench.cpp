#include "kernels/norm.hpp"

#include "bench/bench.hpp"
#include "tests/tensors.hpp"

// Normalising 2 images of 16 channels of extent^3 voxels. Bytes: each tensor once, x twice where statistics
// come first.

namespace cinnabar {
namespace {

struct Setup {
  NormShape shape;
  Tensor x, y, weight, bias, mean, variance, grad_x, grad_weight, grad_bias;
  bench::Work moving(double tensors) const { return {tensors * static_cast<double>(x.bytes()), 0}; }
};

Setup set_up(std::int64_t extent, bool across_images, Device device) {
  const NormShape shape{2, 16, extent * extent * extent, 16, across_images};
  const Shape full{2, 16, shape.voxels};
  const auto make = [&](const Shape& extents, std::uint64_t seed) {
    return testing::random_tensor(extents, seed).to(device);
  };
  Setup s{shape,
          make(full, 1),
          make(full, 2),
          make({16}, 3),
          make({16}, 4),
          Tensor::zeros({shape.sets()}, DType::f64, device),
          Tensor::full({shape.sets()}, 1.0, DType::f64, device),
          make(full, 5),
          make({16}, 6),
          make({16}, 7)};
  return s;
}

void forward(Setup& s, Device device) {
  norm_on(device).statistics(s.x, s.shape, s.mean, s.variance);
  norm_on(device).forward(s.x, s.mean, s.variance, s.weight, s.bias, 1e-5, s.shape, s.y);
}

void backward(Setup& s, Device device) {
  norm_on(device).backward(s.y, s.x, s.mean, s.variance, s.weight, 1e-5, false, s.shape, s.grad_x,
                           s.grad_weight, s.grad_bias);
}

void batch_norm_forward(benchmark::State& state, Device device) {
  Setup s = set_up(state.range(0), true, device);
  bench::measure(state, device, s.moving(3), [&] { forward(s, device); });
}
CINNABAR_BENCH(batch_norm_forward, 16, 32, 64);

void batch_norm_backward(benchmark::State& state, Device device) {
  Setup s = set_up(state.range(0), true, device);
  bench::measure(state, device, s.moving(5), [&] { backward(s, device); });
}
CINNABAR_BENCH(batch_norm_backward, 16, 32, 64);

void instance_norm_forward(benchmark::State& state, Device device) {
  Setup s = set_up(state.range(0), false, device);
  bench::measure(state, device, s.moving(3), [&] { forward(s, device); });
}
CINNABAR_BENCH(instance_norm_forward, 16, 32, 64);

void instance_norm_backward(benchmark::State& state, Device device) {
  Setup s = set_up(state.range(0), false, device);
  bench::measure(state, device, s.moving(5), [&] { backward(s, device); });
}
CINNABAR_BENCH(instance_norm_backward, 16, 32, 64);

}  // namespace
}  // namespace cinnabar
