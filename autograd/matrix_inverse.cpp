#include "autograd/matrix_inverse.hpp"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "autograd/elementwise.hpp"
#include "autograd/matmul.hpp"

namespace cinnabar {

namespace {

/// Reduces [a | b] of n x n matrices until a is the identity and b the inverse of what a was.
void invert(std::vector<double> a, double* b, std::int64_t n) {
  const auto at = [n](std::int64_t row, std::int64_t column) {
    return static_cast<std::size_t>(row * n + column);
  };
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t k = 0; k < n; ++k) b[at(i, k)] = i == k ? 1.0 : 0.0;
  }
  for (std::int64_t c = 0; c < n; ++c) {
    std::int64_t pivot = c;
    for (std::int64_t r = c + 1; r < n; ++r) {
      if (std::abs(a[at(r, c)]) > std::abs(a[at(pivot, c)])) pivot = r;
    }
    CINNABAR_CHECK(a[at(pivot, c)] != 0.0, "matrix_inverse", "a matrix is singular");
    for (std::int64_t k = 0; k < n; ++k) {
      std::swap(a[at(c, k)], a[at(pivot, k)]);
      std::swap(b[at(c, k)], b[at(pivot, k)]);
    }
    const double factor = 1.0 / a[at(c, c)];
    for (std::int64_t k = 0; k < n; ++k) {
      a[at(c, k)] *= factor;
      b[at(c, k)] *= factor;
    }
    for (std::int64_t r = 0; r < n; ++r) {
      const double share = a[at(r, c)];
      if (r == c || share == 0.0) continue;
      for (std::int64_t k = 0; k < n; ++k) {
        a[at(r, k)] -= share * a[at(c, k)];
        b[at(r, k)] -= share * b[at(c, k)];
      }
    }
  }
}

}  // namespace

Variable matrix_inverse(const Variable& matrices) {
  const Tensor& value = matrices.value();
  require_floating("matrix_inverse", value);
  CINNABAR_CHECK(value.rank() >= 2 && value.shape(-1) == value.shape(-2), "matrix_inverse",
                 "needs square matrices, got ", value);
  const std::int64_t n = value.shape(-1), size = n * n;
  const std::vector<double> numbers = value.to_vector<double>();
  std::vector<double> inverses(numbers.size());
  for (std::int64_t first = 0; first < value.numel(); first += size) {
    const auto begin = numbers.begin() + first;
    invert({begin, begin + size}, inverses.data() + first, n);
  }
  const Tensor result = Tensor::from(inverses, value.shape()).to(value.dtype()).to(value.device());
  // d(M^-1) = -M^-1 dM M^-1.
  return record_one("matrix_inverse", result, {matrices}, [result](const Tensor& grad) {
    const Variable inverse(result);
    return std::vector<Tensor>{
        neg(matmul(matmul(inverse, Variable(grad), true), inverse, false, true)).value()};
  });
}

}  // namespace cinnabar
