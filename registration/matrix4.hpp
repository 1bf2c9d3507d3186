#pragma once

#include <array>

namespace cinnabar::registration {

/// A position or a vector, in mm (RAS) or in voxels, as the name beside it says.
using Point = std::array<double, 3>;

/// A row-major 4x4 matrix whose last row is 0 0 0 1.
using Matrix4 = std::array<double, 16>;

inline constexpr Matrix4 kIdentity4{1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};

/// The image of a position.
inline Point transform_point(const Matrix4& a, const Point& p) {
  return {a[0] * p[0] + a[1] * p[1] + a[2] * p[2] + a[3], a[4] * p[0] + a[5] * p[1] + a[6] * p[2] + a[7],
          a[8] * p[0] + a[9] * p[1] + a[10] * p[2] + a[11]};
}

/// The linear part alone, for differences of points.
inline Point transform_vector(const Matrix4& a, const Point& v) {
  return {a[0] * v[0] + a[1] * v[1] + a[2] * v[2], a[4] * v[0] + a[5] * v[1] + a[6] * v[2],
          a[8] * v[0] + a[9] * v[1] + a[10] * v[2]};
}

/// Determinant of the linear part.
inline double determinant(const Matrix4& a) {
  return a[0] * (a[5] * a[10] - a[6] * a[9]) - a[1] * (a[4] * a[10] - a[6] * a[8]) +
         a[2] * (a[4] * a[9] - a[5] * a[8]);
}

/// a after b.
Matrix4 multiply(const Matrix4& a, const Matrix4& b);

/// True when every entry is finite and the linear part is far from singular for its own scale.
bool is_invertible(const Matrix4& a);

/// Throws Error unless `is_invertible`.
Matrix4 invert(const Matrix4& a);

}  // namespace cinnabar::registration
