#pragma once

// Fields and points for the tests of CPAB flows.

#include <cmath>

#include "autograd/cpab.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {

using Boxes = std::vector<std::int32_t>;

inline CpabSpace space_of(const Boxes& boxes, const CpabConstraints& constraints = {}) {
  return CpabSpace(boxes, constraints, DType::f64);
}

/// theta of a lively field: nodes move at about 0.3 of the domain a unit of time.
inline Tensor lively_theta(const CpabSpace& space, std::int64_t batch, std::uint64_t seed) {
  return random_tensor({batch, space.dim()}, seed, -1.2, 1.2, space.dtype());
}

inline Tensor points_inside(std::int64_t count, int dims, std::uint64_t seed, DType dtype = DType::f64) {
  return random_tensor({count, dims}, seed, 0.02, 0.98, dtype);
}

/// The larger one; NaN if either is.
inline double worse(double a, double b) {
  return std::isnan(a) || a >= b ? a : b;
}

inline double largest(const Tensor& x) {
  double result = 0.0;
  for (const double value : x.to_vector<double>()) result = worse(result, std::abs(value));
  return result;
}

}  // namespace cinnabar::testing
