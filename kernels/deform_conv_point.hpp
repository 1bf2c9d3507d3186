#pragma once

#include "kernels/deform_conv.hpp"
#include "kernels/trilinear.hpp"

namespace cinnabar {

/// Where one tap samples the input; axes x, y(, z).
template <class T, int Dims>
struct DeformPoint {
  std::int32_t cell[Dims];
  T fraction[Dims];

  /// NaN where one of the offsets is.
  CINNABAR_HD T fraction_sum() const {
    T sum = T(0);
    for (int axis = 0; axis < Dims; ++axis) sum += fraction[axis];
    return sum;
  }
};

/// The cell at `voxel` (x, y, z) plus an offset, whose components (z,) y, x lie `stride` elements apart.
template <class T, int Dims>
CINNABAR_HD DeformPoint<T, Dims> deform_point(const std::int32_t (&voxel)[Dims], const T* offset,
                                              std::int64_t stride) {
  DeformPoint<T, Dims> point;
  for (int axis = 0; axis < Dims; ++axis) {
    const AxisCell<T> at = displaced_cell(voxel[axis], offset[(Dims - 1 - axis) * stride]);
    point.cell[axis] = at.cell;
    point.fraction[axis] = at.fraction;
  }
  return point;
}

/// The corners of a point's cell: bit a of a corner's number says the upper one along axis a.
template <int Dims>
struct DeformCorners {
  static constexpr int kCount = 1 << Dims;
  std::int32_t offset[kCount];  ///< in a channel, 0 outside
  unsigned inside;              ///< a bit for each corner
};

template <class T, int Dims>
CINNABAR_HD DeformCorners<Dims> deform_corners(const DeformPoint<T, Dims>& point,
                                               const DeformConvShape& shape) {
  DeformCorners<Dims> corners;
  corners.inside = 0;
  for (int k = 0; k < DeformCorners<Dims>::kCount; ++k) {
    bool inside = true;
    std::int32_t offset = 0;
    for (int axis = Dims - 1; axis >= 0; --axis) {
      const std::int32_t index = point.cell[axis] + ((k >> axis) & 1), extent = shape.axis[2 - axis].in;
      inside = inside && index >= 0 && index < extent;
      offset = inside ? offset * extent + index : 0;
    }
    corners.offset[k] = offset;
    corners.inside |= inside ? 1u << k : 0u;
  }
  return corners;
}

/// Linear weight of a corner.
template <class T, int Dims>
CINNABAR_HD T deform_weight(const DeformPoint<T, Dims>& point, int corner) {
  T weight = T(1);
  for (int axis = 0; axis < Dims; ++axis) {
    weight *= ((corner >> axis) & 1) != 0 ? point.fraction[axis] : T(1) - point.fraction[axis];
  }
  return weight;
}

/// Weights of all corners times `factor`; 0 outside, NaN everywhere for a NaN point.
template <class T, int Dims>
CINNABAR_HD void deform_weights(const DeformPoint<T, Dims>& point, const DeformCorners<Dims>& corners,
                                T factor, T (&weight)[1 << Dims]) {
  const T sum = point.fraction_sum();
  for (int k = 0; k < DeformCorners<Dims>::kCount; ++k) {
    const bool inside = ((corners.inside >> k) & 1u) != 0;
    weight[k] = sum != sum ? sum : (inside ? factor * deform_weight(point, k) : T(0));
  }
}

/// The derivative along an axis of the linear interpolation of corner values.
template <class T, int Dims>
CINNABAR_HD T deform_slope(const DeformPoint<T, Dims>& point, const T (&value)[1 << Dims], int axis) {
  T slope = T(0);
  for (int k = 0; k < 1 << Dims; ++k) {
    T weight = ((k >> axis) & 1) != 0 ? T(1) : T(-1);
    for (int other = 0; other < Dims; ++other) {
      const T fraction = point.fraction[other];
      if (other != axis) weight *= ((k >> other) & 1) != 0 ? fraction : T(1) - fraction;
    }
    slope += weight * value[k];
  }
  return slope;
}

}  // namespace cinnabar
