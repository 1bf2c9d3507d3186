// kernels/cuda/vendor/fft.hpp on the host, by FFTW.

#include "kernels/cuda/vendor/fft.hpp"

#include <fftw3.h>

#include <mutex>

#include "engine/error.hpp"

namespace cinnabar::cuda::vendor {
namespace {

/// FFTW's planner is not thread-safe; the emulator is not about speed, so plans are made for each call.
std::mutex planner;

struct Extents {
  int batch, extent[3], volume, half_volume;
};

Extents extents_of(const FftShape& shape) {
  const auto narrow = [](std::int64_t value) {
    CINNABAR_CHECK(value > 0 && value < (std::int64_t{1} << 31), "fft", "bad extent ", value);
    return static_cast<int>(value);
  };
  return {narrow(shape.batch),
          {narrow(shape.d), narrow(shape.h), narrow(shape.w)},
          narrow(shape.d * shape.h * shape.w),
          narrow(shape.d * shape.h * (shape.w / 2 + 1))};
}

void run(fftwf_plan plan) {
  CINNABAR_CHECK(plan != nullptr, "fft", "FFTW has no plan");
  fftwf_execute(plan);
  fftwf_destroy_plan(plan);
}

}  // namespace

void fft_forward(Device, const FftShape& shape, const float* real, float* spectrum) {
  const std::lock_guard lock(planner);
  const Extents e = extents_of(shape);
  run(fftwf_plan_many_dft_r2c(3, e.extent, e.batch, const_cast<float*>(real), nullptr, 1, e.volume,
                              reinterpret_cast<fftwf_complex*>(spectrum), nullptr, 1, e.half_volume,
                              FFTW_ESTIMATE | FFTW_PRESERVE_INPUT));
}

void fft_inverse(Device, const FftShape& shape, float* spectrum, float* real) {
  const std::lock_guard lock(planner);
  const Extents e = extents_of(shape);
  run(fftwf_plan_many_dft_c2r(3, e.extent, e.batch, reinterpret_cast<fftwf_complex*>(spectrum), nullptr, 1,
                              e.half_volume, real, nullptr, 1, e.volume, FFTW_ESTIMATE));
}

}  // namespace cinnabar::cuda::vendor
