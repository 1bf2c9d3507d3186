#include "registration/matrix4.hpp"

#include <cmath>

#include "engine/error.hpp"

namespace cinnabar::registration {

Matrix4 multiply(const Matrix4& a, const Matrix4& b) {
  Matrix4 c{};
  for (std::size_t row = 0; row < 4; ++row) {
    for (std::size_t column = 0; column < 4; ++column) {
      for (std::size_t k = 0; k < 4; ++k) c[row * 4 + column] += a[row * 4 + k] * b[k * 4 + column];
    }
  }
  return c;
}

bool is_invertible(const Matrix4& a) {
  for (const double entry : a) {
    if (!std::isfinite(entry)) return false;
  }
  // |det| against the product of the column lengths is the volume of the unit directions: 1 when they are
  // orthogonal, 0 when they lie in a plane.
  double lengths = 1.0;
  for (std::size_t column = 0; column < 3; ++column) {
    lengths *= std::hypot(a[column], a[4 + column], a[8 + column]);
  }
  return lengths > 0.0 && std::isfinite(lengths) && std::abs(determinant(a)) > 1e-6 * lengths;
}

Matrix4 invert(const Matrix4& a) {
  CINNABAR_CHECK(is_invertible(a), "invert", "the matrix is singular or not finite");
  const double scale = 1.0 / determinant(a);
  Matrix4 r{};
  r[0] = scale * (a[5] * a[10] - a[6] * a[9]);
  r[1] = scale * (a[2] * a[9] - a[1] * a[10]);
  r[2] = scale * (a[1] * a[6] - a[2] * a[5]);
  r[4] = scale * (a[6] * a[8] - a[4] * a[10]);
  r[5] = scale * (a[0] * a[10] - a[2] * a[8]);
  r[6] = scale * (a[2] * a[4] - a[0] * a[6]);
  r[8] = scale * (a[4] * a[9] - a[5] * a[8]);
  r[9] = scale * (a[1] * a[8] - a[0] * a[9]);
  r[10] = scale * (a[0] * a[5] - a[1] * a[4]);
  const Point shift = transform_vector(r, {a[3], a[7], a[11]});
  r[3] = -shift[0];
  r[7] = -shift[1];
  r[11] = -shift[2];
  r[15] = 1.0;
  return r;
}

}  // namespace cinnabar::registration
