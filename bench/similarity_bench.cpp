#include "kernels/similarity.hpp"

#include "bench/bench.hpp"
#include "bench/loss_setup.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/reduce.hpp"

// Losses between two cubes of extent^3 voxels. Bytes: both images once; with gradients one result more.

namespace cinnabar {
namespace {

bench::LossSetup set_up(std::int64_t n, int sums, Device device) {
  return bench::loss_setup(n, Tensor::zeros({1, sums}, DType::f64, device));
}

void ssd_forward(benchmark::State& state, Device device) {
  bench::LossSetup s = set_up(state.range(0), kSsdSums, device);
  bench::measure(state, device, {2 * s.bytes(), 0},
                 [&] { similarity_on(device).ssd(s.a, s.b, {}, false, s.sums, s.loss); });
}
CINNABAR_BENCH(ssd_forward, 64, 128, 256);

/// Difference, square and sum as three ops.
void unfused(benchmark::State& state, Device device) {
  bench::LossSetup s = set_up(state.range(0), kSsdSums, device);
  Tensor total = Tensor::empty({1, 1, 1, 1, 1}, DType::f32, device);
  bench::measure(state, device, {2 * s.bytes(), 0}, [&] {
    elementwise_on(device).binary(Binary::sub, s.a, s.b, s.grad);
    elementwise_on(device).binary(Binary::mul, s.grad, s.grad, s.grad);
    reduce_on(device).forward(Reduction::sum, s.grad, {}, 1.0, total);
  });
}
CINNABAR_RIVAL(ssd_forward, unfused, 64, 128, 256);

void ssd_backward(benchmark::State& state, Device device) {
  bench::LossSetup s = set_up(state.range(0), kSsdSums, device);
  bench::measure(state, device, {3 * s.bytes(), 0}, [&] {
    similarity_on(device).ssd_backward(s.loss, s.a, s.b, {}, false, s.sums, s.grad, s.none);
  });
}
CINNABAR_BENCH(ssd_backward, 64, 128, 256);

void ncc_forward(benchmark::State& state, Device device) {
  bench::LossSetup s = set_up(state.range(0), kNccSums, device);
  bench::measure(state, device, {2 * s.bytes(), 0},
                 [&] { similarity_on(device).ncc(s.a, s.b, {}, s.sums, s.loss); });
}
CINNABAR_BENCH(ncc_forward, 64, 128, 256);

void ncc_backward(benchmark::State& state, Device device) {
  bench::LossSetup s = set_up(state.range(0), kNccSums, device);
  bench::measure(state, device, {3 * s.bytes(), 0},
                 [&] { similarity_on(device).ncc_backward(s.loss, s.a, s.b, {}, s.sums, s.grad, s.none); });
}
CINNABAR_BENCH(ncc_backward, 64, 128, 256);

}  // namespace
}  // namespace cinnabar
