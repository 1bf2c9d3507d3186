#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "engine/error.hpp"
#include "engine/random.hpp"
#include "kernels/random.hpp"

// Random bits to numbers, for both devices. Sums of products are fused by name and everything else is
// correctly rounded, so that no compiler's contraction can change a bit.

namespace cinnabar {

/// Four consecutive numbers of a sequence: those of one Philox counter.
template <class T>
struct RandomGroup {
  T number[4];
};

template <class T>
struct UniformNumbers {
  T low, scale;

  CINNABAR_HD RandomGroup<T> operator()(const PhiloxWords& words) const {
    RandomGroup<T> group;
    for (int w = 0; w < 4; ++w) {
      group.number[w] = std::fma(static_cast<T>(uniform_from_bits(words.word[w])), scale, low);
    }
    return group;
  }
};

/// ln x of a normal x in (0, 1] by atanh's series: with the mantissa in [sqrt(1/2), sqrt(2)) the first term
/// left out is below 3e-9 of the result. Free of branches, so the host compiler vectorises it.
CINNABAR_HD float log_below_one(float x) {
  constexpr std::uint32_t kSqrtHalf = 0x3F3504F3u;  // as the bits of a float
  std::uint32_t bits = 0;
  std::memcpy(&bits, &x, sizeof(x));
  const std::uint32_t above = bits - kSqrtHalf;
  const auto exponent = static_cast<float>(static_cast<std::int32_t>(above) >> 23);
  bits = (above & 0x007FFFFFu) + kSqrtHalf;
  float mantissa = 0.0f;
  std::memcpy(&mantissa, &bits, sizeof(bits));
  const float s = (mantissa - 1.0f) / (mantissa + 1.0f);
  const float z = s * s;
  float series = std::fma(z, 1.0f / 9.0f, 1.0f / 7.0f);
  series = std::fma(z, series, 1.0f / 5.0f);
  series = std::fma(z, series, 1.0f / 3.0f);
  const float twice = 2.0f * s;
  return std::fma(exponent, 0.693147181f, std::fma(twice * z, series, twice));
}

/// A random direction: cosine and sine of 2 pi bits / 2^32. The quadrant comes off exactly, as an integer.
CINNABAR_HD void direction_from_bits(std::uint32_t bits, float& cosine, float& sine) {
  const std::uint32_t quadrant = (bits + 0x20000000u) >> 30;
  const auto rest = static_cast<std::int32_t>(bits - (quadrant << 30));
  const float x = static_cast<float>(rest) * 1.46291808e-9f;  // pi / 2^31: x is in [-pi/4, pi/4]
  const float z = x * x;
  float s = std::fma(z, 2.75573192e-6f, -1.98412698e-4f);  // Taylor: 1/9!, -1/7!, ...
  s = std::fma(z, s, 8.33333333e-3f);
  s = std::fma(z, s, -1.66666667e-1f);
  s = std::fma(x * z, s, x);
  float c = std::fma(z, -2.75573192e-7f, 2.48015873e-5f);  // -1/10!, 1/8!, ...
  c = std::fma(z, c, -1.38888889e-3f);
  c = std::fma(z, c, 4.16666667e-2f);
  c = std::fma(z, c, -0.5f);
  c = std::fma(z, c, 1.0f);
  const bool swapped = (quadrant & 1u) != 0;
  const float along = swapped ? s : c;
  const float across = swapped ? c : s;
  cosine = ((quadrant + 1u) & 2u) != 0 ? -along : along;
  sine = (quadrant & 2u) != 0 ? -across : across;
}

CINNABAR_HD void direction_from_bits(std::uint32_t bits, double& cosine, double& sine) {
  const double angle = static_cast<double>(bits) * (6.283185307179586 * 0x1p-32);
  cosine = std::cos(angle);
  sine = std::sin(angle);
}
CINNABAR_HD double log_below_one(double x) {
  return std::log(x);
}

template <class T>
struct NormalNumbers {
  T mean, deviation;

  CINNABAR_HD RandomGroup<T> operator()(const PhiloxWords& words) const {
    RandomGroup<T> group;
    for (int pair = 0; pair < 2; ++pair) {
      // In (0, 1]: the middle of one of 2^32 equal parts, as a float in either precision.
      const float part = std::fma(static_cast<float>(words.word[2 * pair]), 0x1p-32f, 0x1p-33f);
      const T radius = std::sqrt(T(-2) * log_below_one(static_cast<T>(part)));
      T cosine, sine;
      direction_from_bits(words.word[2 * pair + 1], cosine, sine);
      group.number[2 * pair] = std::fma(deviation, radius * cosine, mean);
      group.number[2 * pair + 1] = std::fma(deviation, radius * sine, mean);
    }
    return group;
  }
};

inline void check_random(const char* op, const RandomSequence& sequence, double first, double second) {
  CINNABAR_CHECK(std::isfinite(first) && std::isfinite(second), op, "parameters ", first, " and ", second,
                 " are not finite");
  CINNABAR_CHECK(sequence.offset <= std::uint64_t{1} << 62, op, "offset ", sequence.offset, " is above 2^62");
}

}  // namespace cinnabar
