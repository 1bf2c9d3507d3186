#pragma once

#include <array>

#include "kernels/cpu/line_transform.hpp"
#include "kernels/cpu/scratch.hpp"

namespace cinnabar::cpu {

/// The taps of one axis as terms: the middle tap is term 0, the sum of the taps j after and j before it term
/// 2 j - 1, their difference term 2 j. A kernel's transform at the frequency theta, its middle at 0, is then
///   term[0] + sum over j of term[2 j - 1] cos(j theta) + i term[2 j] sin(j theta),
/// two multiply-adds a term instead of four. An even kernel has a zero tap more.
template <class T>
class TapAxis {
 public:
  /// `sign` is that of the transform.
  TapAxis(std::int64_t kernel, std::int64_t extent, int sign) : kernel_(kernel), reach_(kernel / 2) {
    for (std::int64_t f = 0; f < extent; ++f) {
      for (std::int64_t j = 1; j <= reach_; ++j) {
        const double angle =
            2.0 * std::numbers::pi * static_cast<double>(f * j % extent) / static_cast<double>(extent);
        cos_.push_back(static_cast<T>(std::cos(angle)));
        sin_.push_back(static_cast<T>(sign * std::sin(angle)));
      }
    }
  }

  std::int64_t kernel() const { return kernel_; }
  std::int64_t reach() const { return reach_; }
  std::int64_t terms() const { return 2 * reach_ + 1; }
  /// The term whose place a tap takes before the taps are made into terms.
  std::int64_t slot(std::int64_t tap) const {
    return tap > reach_ ? 2 * (tap - reach_) - 1 : tap < reach_ ? 2 * (reach_ - tap) : 0;
  }
  /// [j - 1]
  const T* cos(std::int64_t frequency) const { return cos_.data() + frequency * reach_; }
  const T* sin(std::int64_t frequency) const { return sin_.data() + frequency * reach_; }

 private:
  std::int64_t kernel_, reach_;
  std::vector<T> cos_, sin_;  ///< [frequency][j - 1]
};

/// Sets to[i] to the transform of from[i], terms `count` apart. kReach is the axis's, or 0 for any: knowing
/// it saves a third of the time.
template <int kReach, class T>
void sum_terms(const TapAxis<T>& axis, std::int64_t frequency, const ComplexLanes<T>* from,
               std::int64_t count, ComplexLanes<T>* to) {
  const std::int64_t reach = kReach == 0 ? axis.reach() : kReach;
  const T* cos = axis.cos(frequency);
  const T* sin = axis.sin(frequency);
  for (std::int64_t i = 0; i < count; ++i) {
    ComplexLanes<T> sum = from[i];
    for (std::int64_t j = 0; j < reach; ++j) {
      const ComplexLanes<T>&even = from[(2 * j + 1) * count + i], &odd = from[(2 * j + 2) * count + i];
      sum.re += cos[j] * even.re;
      sum.im += cos[j] * even.im;
      sum.re -= sin[j] * odd.im;
      sum.im += sin[j] * odd.re;
    }
    to[i] = sum;
  }
}

/// The same from real terms.
template <int kReach, class T>
void sum_terms(const TapAxis<T>& axis, std::int64_t frequency, const Lanes<T>* from, std::int64_t count,
               ComplexLanes<T>* to) {
  const std::int64_t reach = kReach == 0 ? axis.reach() : kReach;
  const T* cos = axis.cos(frequency);
  const T* sin = axis.sin(frequency);
  for (std::int64_t i = 0; i < count; ++i) {
    ComplexLanes<T> sum{from[i], {}};
    for (std::int64_t j = 0; j < reach; ++j) {
      sum.re += cos[j] * from[(2 * j + 1) * count + i];
      sum.im += sin[j] * from[(2 * j + 2) * count + i];
    }
    to[i] = sum;
  }
}

template <class T, class Terms>
void sum_terms(const TapAxis<T>& axis, std::int64_t frequency, const Terms* from, std::int64_t count,
               ComplexLanes<T>* to) {
  if (axis.reach() == 1) {
    sum_terms<1>(axis, frequency, from, count, to);
  } else {
    sum_terms<0>(axis, frequency, from, count, to);
  }
}

/// The inverse, one frequency of it: adds `scale` times from[i] to the terms to[i] and on.
template <class T>
void add_to_terms(const TapAxis<T>& axis, std::int64_t frequency, T scale, const ComplexLanes<T>* from,
                  std::int64_t count, ComplexLanes<T>* to) {
  const T* cos = axis.cos(frequency);
  const T* sin = axis.sin(frequency);
  for (std::int64_t i = 0; i < count; ++i) {
    const ComplexLanes<T> value{scale * from[i].re, scale * from[i].im};
    to[i].re += value.re;
    to[i].im += value.im;
    for (std::int64_t j = 0; j < axis.reach(); ++j) {
      ComplexLanes<T>&even = to[(2 * j + 1) * count + i], &odd = to[(2 * j + 2) * count + i];
      even.re += cos[j] * value.re;
      even.im += cos[j] * value.im;
      odd.re -= sin[j] * value.im;
      odd.im += sin[j] * value.re;
    }
  }
}

/// The real part of that.
template <class T>
void add_to_terms(const TapAxis<T>& axis, std::int64_t frequency, const ComplexLanes<T>* from,
                  std::int64_t count, Lanes<T>* to) {
  const T* cos = axis.cos(frequency);
  const T* sin = axis.sin(frequency);
  for (std::int64_t i = 0; i < count; ++i) {
    to[i] += from[i].re;
    for (std::int64_t j = 0; j < axis.reach(); ++j) {
      to[(2 * j + 1) * count + i] += cos[j] * from[i].re;
      to[(2 * j + 2) * count + i] -= sin[j] * from[i].im;
    }
  }
}

/// Room for so many channels in a term: odd, or else the terms of 32 channels would all lie 4096 bytes apart,
/// in the same cache sets.
inline std::int64_t room_of(std::int64_t read_count) {
  return read_count | 1;
}

/// The three axes of a kernel, and its taps as lanes: [terms D][terms H][terms W][room for channels read], a
/// written channel a lane.
template <class T>
struct TapTerms {
  /// The written channels [written, + written_count) and the read ones [read, + read_count) of a group, each
  /// so many weights apart.
  struct Channels {
    std::int64_t written, written_count, written_stride;
    std::int64_t read, read_count, read_stride;
  };

  TapAxis<T> axis[3];

  std::int64_t slice_terms() const { return axis[1].terms() * axis[2].terms(); }
  std::int64_t terms() const { return axis[0].terms() * slice_terms(); }

  /// Makes terms of taps.
  void read(const T* weight, const Channels& channels, Lanes<T>* terms_of) const {
    T* values = reinterpret_cast<T*>(terms_of);
    std::fill_n(values, terms() * room_of(channels.read_count) * kLanes<T>, T(0));
    for_each_tap([&](std::int64_t tap, std::int64_t term) {
      for (std::int64_t r = 0; r < channels.read_count; ++r) {
        const T* from = first_of(weight, channels, r) + tap;
        T* to = values + (term * room_of(channels.read_count) + r) * kLanes<T>;
        for (std::int64_t w = 0; w < channels.written_count; ++w) to[w] = from[w * channels.written_stride];
      }
    });
    add_and_subtract(room_of(channels.read_count), terms_of);
  }

  /// Makes taps of sums over cosines and sines, and writes `scale` times them.
  void write(Lanes<T>* terms_of, const Channels& channels, T scale, T* weight) const {
    add_and_subtract(room_of(channels.read_count), terms_of);
    const T* values = reinterpret_cast<const T*>(terms_of);
    for_each_tap([&](std::int64_t tap, std::int64_t term) {
      for (std::int64_t r = 0; r < channels.read_count; ++r) {
        T* to = first_of(weight, channels, r) + tap;
        const T* from = values + (term * room_of(channels.read_count) + r) * kLanes<T>;
        for (std::int64_t w = 0; w < channels.written_count; ++w) {
          to[w * channels.written_stride] = scale * from[w];
        }
      }
    });
  }

 private:
  template <class Weight>
  static Weight* first_of(Weight* weight, const Channels& channels, std::int64_t r) {
    return weight + (channels.read + r) * channels.read_stride + channels.written * channels.written_stride;
  }

  template <class Visit>
  void for_each_tap(const Visit& visit) const {
    std::int64_t tap = 0;
    for (std::int64_t d = 0; d < axis[0].kernel(); ++d) {
      for (std::int64_t h = 0; h < axis[1].kernel(); ++h) {
        for (std::int64_t w = 0; w < axis[2].kernel(); ++w, ++tap) {
          visit(tap,
                (axis[0].slot(d) * axis[1].terms() + axis[1].slot(h)) * axis[2].terms() + axis[2].slot(w));
        }
      }
    }
  }

  /// Along every axis (a, b), which belong to the taps j after and j before the middle, become a + b and
  /// a - b.
  void add_and_subtract(std::int64_t room, Lanes<T>* terms_of) const {
    std::int64_t stride = room;
    for (int i = 2; i >= 0; --i) {
      const std::int64_t along = axis[i].terms() * stride;
      for (std::int64_t first = 0; first < terms() * room; first += along) {
        for (std::int64_t j = 1; j <= axis[i].reach(); ++j) {
          Lanes<T>* after = terms_of + first + (2 * j - 1) * stride;
          Lanes<T>* before = after + stride;
          for (std::int64_t k = 0; k < stride; ++k) {
            const Lanes<T> a = after[k], b = before[k];
            after[k] = a + b;
            before[k] = a - b;
          }
        }
      }
      stride = along;
    }
  }
};

}  // namespace cinnabar::cpu
