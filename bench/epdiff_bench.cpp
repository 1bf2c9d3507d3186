#include "kernels/epdiff.hpp"

#include "bench/bench.hpp"
#include "bench/wavy_field.hpp"
#include "kernels/warp.hpp"

// The coadjoint action of a map on a momentum. Bytes: map, momentum and result once. The rival writes the
// sampled momentum and the nine entries of the Jacobian to memory before it multiplies them.

namespace cinnabar {
namespace {

bench::Work work_of(std::int64_t n) {
  return {36.0 * static_cast<double>(n * n * n)};
}

void coad(benchmark::State& state, Device device) {
  const std::int64_t n = state.range(0);
  const Tensor u = bench::wavy_field(n, 2.0, device), m = bench::wavy_field(n, 0.1, device);
  Tensor result = Tensor::empty_like(m);
  bench::measure(state, device, work_of(n), [&] { epdiff_on(device).coad(u, m, result); });
}
CINNABAR_BENCH(coad, 64, 128, 256);

void separate_passes(benchmark::State& state, Device device) {
  if (!device.is_cpu()) return state.SkipWithError("runs on the CPU");
  const std::int64_t n = state.range(0), voxels = n * n * n;
  const Tensor u = bench::wavy_field(n, 2.0, device), m = bench::wavy_field(n, 0.1, device);
  Tensor sampled = Tensor::empty_like(m), jacobian = Tensor::empty({1, 9, n, n, n}),
         result = Tensor::empty_like(m);
  bench::measure(state, device, work_of(n), [&] {
    warp_on(device).forward(m, u, Boundary::zeros, sampled);
    epdiff_on(device).jacobian(u, jacobian);
    const float* j = jacobian.data<float>();
    const float* s = sampled.data<float>();
    for (std::int64_t i = 0; i < voxels; ++i) {
      const auto at = [&](int row, int column) { return j[(3 * row + column) * voxels + i]; };
      const float determinant = at(0, 0) * (at(1, 1) * at(2, 2) - at(1, 2) * at(2, 1)) -
                                at(0, 1) * (at(1, 0) * at(2, 2) - at(1, 2) * at(2, 0)) +
                                at(0, 2) * (at(1, 0) * at(2, 1) - at(1, 1) * at(2, 0));
      for (int c = 0; c < 3; ++c) {
        result.data<float>()[c * voxels + i] =
            determinant * (at(0, c) * s[i] + at(1, c) * s[voxels + i] + at(2, c) * s[2 * voxels + i]);
      }
    }
  });
}
CINNABAR_RIVAL(coad, separate_passes, 64, 128);

void coad_inf(benchmark::State& state, Device device) {
  const std::int64_t n = state.range(0);
  const Tensor v = bench::wavy_field(n, 2.0, device), m = bench::wavy_field(n, 0.1, device);
  Tensor result = Tensor::empty_like(m);
  bench::measure(state, device, work_of(n), [&] { epdiff_on(device).coad_inf(v, m, result); });
}
CINNABAR_BENCH(coad_inf, 64, 128, 256);

}  // namespace
}  // namespace cinnabar
