#pragma once

#include <cmath>
#include <numbers>
#include <vector>

#include "kernels/cpu/lanes.hpp"

namespace cinnabar::cpu {

/// Fourier transforms of short lines, those of many channels at once: every number below is one of each lane.
/// `work` is room for as many complex lanes as the line has.
/// Plain sums over the line, with the values n and extent - n folded first, which needs a quarter of the
/// products: at 16 points 224 multiply-adds where a fast transform has 168 operations, none of them a
/// shuffle.
template <class T>
class LineTransform {
 public:
  explicit LineTransform(std::int64_t extent) : extent_(extent), pairs_((extent - 1) / 2) {
    for (std::int64_t f = 0; f <= extent / 2; ++f) {
      for (std::int64_t n = 1; n <= pairs_; ++n) {
        const double angle =
            2.0 * std::numbers::pi * static_cast<double>(f * n % extent) / static_cast<double>(extent);
        cos_.push_back(static_cast<T>(std::cos(angle)));
        sin_.push_back(static_cast<T>(std::sin(angle)));
      }
    }
  }

  std::int64_t extent() const { return extent_; }

  /// line[f] = sum over n of line[n] e^(sign 2 pi i f n / extent), in place.
  void transform(int sign, ComplexLanes<T>* line, ComplexLanes<T>* work) const {
    ComplexLanes<T>* even = work;
    ComplexLanes<T>* odd = work + pairs_;
    const T turn = static_cast<T>(sign);
    for (std::int64_t n = 0; n < pairs_; ++n) {
      const ComplexLanes<T> a = line[n + 1], b = line[extent_ - 1 - n];
      even[n] = {a.re + b.re, a.im + b.im};
      odd[n] = {turn * (a.re - b.re), turn * (a.im - b.im)};
    }
    const ComplexLanes<T> first = line[0];
    const ComplexLanes<T> middle = has_middle() ? line[extent_ / 2] : ComplexLanes<T>{};
    for (std::int64_t f = 0; f <= extent_ / 2; ++f) {
      const T* c = cos_.data() + f * pairs_;
      const T* s = sin_.data() + f * pairs_;
      const T alternating = f % 2 == 0 ? T(1) : T(-1);
      ComplexLanes<T> p{first.re + alternating * middle.re, first.im + alternating * middle.im};
      ComplexLanes<T> q{};
      for (std::int64_t n = 0; n < pairs_; ++n) {
        p.re += c[n] * even[n].re;
        p.im += c[n] * even[n].im;
        q.re += s[n] * odd[n].re;
        q.im += s[n] * odd[n].im;
      }
      line[f] = {p.re - q.im, p.im + q.re};
      if (f != 0 && 2 * f != extent_) line[extent_ - f] = {p.re + q.im, p.im - q.re};
    }
  }

  /// half[f] = sum over n of line[n] e^(-2 pi i f n / extent) for f <= extent / 2.
  void real_to_half(const Lanes<T>* line, ComplexLanes<T>* half, ComplexLanes<T>* work) const {
    for (std::int64_t n = 0; n < pairs_; ++n) {
      const Lanes<T>&a = line[n + 1], &b = line[extent_ - 1 - n];
      work[n] = {a + b, b - a};
    }
    sum_folded(line[0], has_middle() ? line[extent_ / 2] : Lanes<T>{}, work,
               [half](std::int64_t f, const ComplexLanes<T>& sums) { half[f] = sums; });
  }

  /// The unscaled inverse of real_to_half.
  void half_to_real(const ComplexLanes<T>* half, Lanes<T>* line, ComplexLanes<T>* work) const {
    for (std::int64_t f = 0; f < pairs_; ++f) work[f] = {T(2) * half[f + 1].re, T(2) * half[f + 1].im};
    sum_folded(half[0].re, has_middle() ? half[extent_ / 2].re : Lanes<T>{}, work,
               [this, line](std::int64_t n, const ComplexLanes<T>& sums) {
                 line[n] = sums.re - sums.im;
                 if (n != 0 && 2 * n != extent_) line[extent_ - n] = sums.re + sums.im;
               });
  }

 private:
  bool has_middle() const { return extent_ % 2 == 0; }

  /// Calls take(f, {first + (-1)^f middle + sum of even cos, sum of odd sin}), folded = {even, odd}.
  template <class Take>
  void sum_folded(const Lanes<T>& first, const Lanes<T>& middle, const ComplexLanes<T>* folded,
                  const Take& take) const {
    for (std::int64_t f = 0; f <= extent_ / 2; ++f) {
      const T* c = cos_.data() + f * pairs_;
      const T* s = sin_.data() + f * pairs_;
      ComplexLanes<T> sums{first + (f % 2 == 0 ? T(1) : T(-1)) * middle, {}};
      for (std::int64_t n = 0; n < pairs_; ++n) {
        sums.re += c[n] * folded[n].re;
        sums.im += s[n] * folded[n].im;
      }
      take(f, sums);
    }
  }

  std::int64_t extent_;
  std::int64_t pairs_;  ///< (n, extent - n)
  std::vector<T> cos_;  ///< [f][n - 1] for f <= extent / 2, n <= pairs
  std::vector<T> sin_;
};

}  // namespace cinnabar::cpu
