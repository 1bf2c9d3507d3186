#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace cinnabar::cpu {

/// e^x for x of at most 88, free of branches and calls, so that loops vectorise: 2^n e^r with |r| up to
/// ln(2) / 2 and the Taylor series of e^r to r^7, whose rest is below 5e-9 of the result. Results below the
/// smallest normal float are 0; NaN stays NaN.
inline float vector_exp(float x) {
  constexpr float kSmallest = -87.3365f;
  constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float limited = x > kSmallest ? x : kSmallest;
  const float n = (limited * 1.44269504f + kRounder) - kRounder;
  const float r = (limited - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  float series = 1.0f / 5040.0f;
  series = series * r + 1.0f / 720.0f;
  series = series * r + 1.0f / 120.0f;
  series = series * r + 1.0f / 24.0f;
  series = series * r + 1.0f / 6.0f;
  series = series * r + 0.5f;
  const float value = (series * r * r + r) + 1.0f;
  const auto power = std::bit_cast<float>((static_cast<std::int32_t>(n) + 127) << 23);
  const float result = x < kSmallest ? 0.0f : value * power;
  return x != x ? x : result;
}

inline double vector_exp(double x) {
  return std::exp(x);
}

}  // namespace cinnabar::cpu
