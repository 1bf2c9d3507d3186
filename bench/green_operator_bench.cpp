#include "kernels/green_operator.hpp"

#include <fftw3.h>
#include <omp.h>

#include "bench/bench.hpp"
#include "bench/wavy_field.hpp"

// K m on the periodic grid itself. Bytes: 168 a voxel, three components through a transform forth and back
// with the symbol. The rival is FFTW alone: the six transforms without the symbol.

namespace cinnabar {
namespace {

bench::Work work_of(std::int64_t n) {
  return {168.0 * static_cast<double>(n * n * n)};
}

void smooth(benchmark::State& state, Device device) {
  const std::int64_t n = state.range(0);
  const Tensor m = bench::wavy_field(n, 0.1, device);
  Tensor v = Tensor::empty_like(m);
  bench::measure(state, device, work_of(n),
                 [&] { green_operator_on(device).smooth(m, {}, FftPadding::exact, v); });
}
CINNABAR_BENCH(smooth, 64, 128, 256);

void plain_fftw(benchmark::State& state, Device device) {
  if (!device.is_cpu()) return state.SkipWithError("runs on the CPU");
  const int n = static_cast<int>(state.range(0));
  const std::int64_t voxels = std::int64_t{n} * n * n, half = std::int64_t{n} * n * (n / 2 + 1);
  Tensor m = bench::wavy_field(n, 0.1, device);
  Tensor spectrum = Tensor::empty({3, half, 2});
  auto* bins = reinterpret_cast<fftwf_complex*>(spectrum.data<float>());
  const int extents[3] = {n, n, n};
  fftwf_init_threads();
  fftwf_plan_with_nthreads(omp_get_max_threads());
  const fftwf_plan forth =
      fftwf_plan_many_dft_r2c(3, extents, 3, m.data<float>(), nullptr, 1, static_cast<int>(voxels), bins,
                              nullptr, 1, static_cast<int>(half), FFTW_ESTIMATE);
  const fftwf_plan back =
      fftwf_plan_many_dft_c2r(3, extents, 3, bins, nullptr, 1, static_cast<int>(half), m.data<float>(),
                              nullptr, 1, static_cast<int>(voxels), FFTW_ESTIMATE);
  bench::measure(state, device, work_of(n), [&] {
    fftwf_execute(forth);
    fftwf_execute(back);
  });
  fftwf_destroy_plan(forth);
  fftwf_destroy_plan(back);
}
CINNABAR_RIVAL(smooth, plain_fftw, 64, 128);

}  // namespace
}  // namespace cinnabar
