#pragma once

#include <fftw3.h>

#include <cstdint>

namespace cinnabar::cpu {

/// FFTW's two precisions under one name.
template <class T>
struct Fftw;
template <>
struct Fftw<float> {
  using Complex = fftwf_complex;
  using Plan = fftwf_plan;
  static constexpr auto many_r2c = fftwf_plan_many_dft_r2c;
  static constexpr auto many_c2r = fftwf_plan_many_dft_c2r;
  static constexpr auto many = fftwf_plan_many_dft;
  static constexpr auto run_r2c = fftwf_execute_dft_r2c;
  static constexpr auto run_c2r = fftwf_execute_dft_c2r;
  static constexpr auto run = fftwf_execute_dft;
};
template <>
struct Fftw<double> {
  using Complex = fftw_complex;
  using Plan = fftw_plan;
  static constexpr auto many_r2c = fftw_plan_many_dft_r2c;
  static constexpr auto many_c2r = fftw_plan_many_dft_c2r;
  static constexpr auto many = fftw_plan_many_dft;
  static constexpr auto run_r2c = fftw_execute_dft_r2c;
  static constexpr auto run_c2r = fftw_execute_dft_c2r;
  static constexpr auto run = fftw_execute_dft;
};

}  // namespace cinnabar::cpu
