#include "kernels/update_inverse.hpp"

#include <cstring>

#include "bench/bench.hpp"
#include "bench/wavy_field.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/warp.hpp"

// The inverse map after an increment of 0.2 voxels, at most 20 iterations. Bytes: two fields in, one out. The
// rival runs all 20 iterations as whole-grid samplings; their results must be equal.

namespace cinnabar {
namespace {

constexpr int kIterations = 20;

bench::Work work_of(std::int64_t n) {
  return {36.0 * static_cast<double>(n * n * n)};
}

Tensor full_loop(const Tensor& psi, const Tensor& increment) {
  const Device device = psi.device();
  Tensor updated = psi.clone(), back = Tensor::empty_like(psi);
  for (int i = 0; i < kIterations; ++i) {
    warp_on(device).forward(increment, updated, Boundary::zeros, back);
    elementwise_on(device).axpy(-2.0, back.clone(), back);
    warp_on(device).compose(psi, back, updated);
  }
  return updated;
}

void update_inverse(benchmark::State& state, Device device) {
  const std::int64_t n = state.range(0);
  const Tensor psi = bench::wavy_field(n, 2.0, device), increment = bench::wavy_field(n, 0.2, device);
  Tensor updated = Tensor::empty_like(psi);
  bench::measure(state, device, work_of(n),
                 [&] { update_inverse_on(device).forward(psi, increment, kIterations, updated); });
}
CINNABAR_BENCH(update_inverse, 64, 128, 256);

void fixed_loop(benchmark::State& state, Device device) {
  const std::int64_t n = state.range(0);
  const Tensor psi = bench::wavy_field(n, 2.0, device), increment = bench::wavy_field(n, 0.2, device);
  Tensor updated = Tensor::empty_like(psi);
  update_inverse_on(device).forward(psi, increment, kIterations, updated);
  const std::vector<float> fused = updated.to_vector<float>(),
                           rival = full_loop(psi, increment).to_vector<float>();
  if (std::memcmp(fused.data(), rival.data(), updated.bytes()) != 0) {
    return state.SkipWithError("the fused iteration differs from the full loop");
  }
  bench::measure(state, device, work_of(n), [&] { full_loop(psi, increment); });
}
CINNABAR_RIVAL(update_inverse, fixed_loop, 64, 128);

}  // namespace
}  // namespace cinnabar
