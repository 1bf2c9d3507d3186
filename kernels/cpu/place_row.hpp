#pragma once

#include <cstdint>

#include "kernels/cpu/lattice.hpp"
#include "kernels/trilinear.hpp"

namespace cinnabar::cpu {

/// Cells, fractions and slopes of up to kLength neighbouring voxels of a row, found in one vectorised pass
/// before the samples are gathered one by one.
template <class T>
struct PlaceRow {
  static constexpr std::int64_t kLength = 64;

  std::int64_t offset[kLength];
  T fraction[3][kLength];
  T slope[3][kLength];
  std::int32_t inside[kLength];

  Place<T> operator[](std::int64_t i) const {
    return {offset[i], fraction[0][i], fraction[1][i], fraction[2][i]};
  }

  /// The value of a voxel that is not inside: zero, or NaN where the displacement is.
  T outside_value(std::int64_t i) const {
    const T sum = fraction[0][i] + fraction[1][i] + fraction[2][i];
    return sum == sum ? T(0) : sum;
  }

  /// Places voxels x0 .. x0 + count - 1 of row (z, y), whose displacements start at u, components `stride`
  /// apart. Offsets refer to lattices with the given row and plane.
  template <Boundary kBoundary>
  void locate(const T* u, std::int64_t stride, const std::int64_t (&extent)[3], std::int64_t row,
              std::int64_t plane, const std::int64_t (&voxel)[3], std::int64_t count) {
    const auto narrow = [](std::int64_t value) { return static_cast<std::int32_t>(value); };
    const std::int32_t extent_x = narrow(extent[0]);
    const std::int32_t extent_y = narrow(extent[1]);
    const std::int32_t extent_z = narrow(extent[2]);
    const std::int32_t x0 = narrow(voxel[0]);
    const std::int32_t y = narrow(voxel[1]);
    const std::int32_t z = narrow(voxel[2]);
    const std::int64_t origin = plane + row + 1;
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) {
      const auto at_x = bounded_cell<kBoundary>(displaced_cell(x0 + narrow(i), u[i]), extent_x);
      const auto at_y = bounded_cell<kBoundary>(displaced_cell(y, u[stride + i]), extent_y);
      const auto at_z = bounded_cell<kBoundary>(displaced_cell(z, u[2 * stride + i]), extent_z);
      fraction[0][i] = at_x.fraction;
      fraction[1][i] = at_y.fraction;
      fraction[2][i] = at_z.fraction;
      slope[0][i] = at_x.slope;
      slope[1][i] = at_y.slope;
      slope[2][i] = at_z.slope;
      inside[i] = at_x.inside && at_y.inside && at_z.inside;
      offset[i] = origin + at_z.cell * plane + at_y.cell * row + at_x.cell;
    }
  }
};

}  // namespace cinnabar::cpu
