#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "engine/random.hpp"
#include "engine/tensor.hpp"

namespace cinnabar::testing {

/// Uniform values in [low, high), the same for a seed on every machine.
inline Tensor random_tensor(const Shape& shape, std::uint64_t seed, double low = -1.0, double high = 1.0,
                            DType dtype = DType::f32) {
  std::vector<double> values(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float unit = uniform_from_bits(philox_4x32_10(seed, 7, i).word[0]);
    values[i] = low + (high - low) * static_cast<double>(unit);
  }
  return Tensor::from(values, shape).to(dtype);
}

/// A tensor full of NaN, for kernels that must assign every element.
inline Tensor poisoned(const Shape& shape, DType dtype = DType::f32, Device device = Device::cpu()) {
  return Tensor::full(shape, std::numeric_limits<double>::quiet_NaN(), dtype, device);
}

inline Tensor poisoned_like(const Tensor& other) {
  return poisoned(other.shape(), other.dtype(), other.device());
}

/// max |actual - expected| / max |expected|; infinite where a NaN or an infinity meets another number or the
/// shapes differ, and the plain maximum difference where `expected` is all zero. Infinities that agree do not
/// count.
inline double relative_error(const Tensor& actual, const Tensor& expected) {
  if (actual.shape() != expected.shape()) return std::numeric_limits<double>::infinity();
  const std::vector<double> a = actual.to_vector<double>();
  const std::vector<double> e = expected.to_vector<double>();
  double difference = 0.0;
  double largest = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) != std::isnan(e[i])) return std::numeric_limits<double>::infinity();
    if (std::isnan(a[i])) continue;
    if (std::isinf(a[i]) || std::isinf(e[i])) {
      if (a[i] != e[i]) return std::numeric_limits<double>::infinity();
      continue;
    }
    difference = std::max(difference, std::abs(a[i] - e[i]));
    largest = std::max(largest, std::abs(e[i]));
  }
  return largest > 0.0 ? difference / largest : difference;
}

/// Whether two tensors hold the same bits.
inline bool same_values(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.to_vector<double>() == b.to_vector<double>();
}

}  // namespace cinnabar::testing
