#pragma once

#include <cstdint>

#include "engine/host_device.hpp"

namespace cinnabar {

/// Neighbours of a voxel along the axes x, y, z: relative offsets, 0 where the voxel lies on that face. The
/// difference operator is D_d f = (f[plus] - f[minus]) / 2, its transpose takes -f or +f of the face voxel
/// for the missing neighbour.
template <class T>
struct Stencil {
  std::int64_t minus[3];
  std::int64_t plus[3];
  T minus_sign[3];  ///< weight of f[minus] in the transpose: 1, or -1 on the lower face
  T plus_sign[3];   ///< weight of f[plus] in the transpose: 1, or -1 on the upper face
  T identity[3];    ///< D_d of the coordinate: 1 inside, 1/2 on faces, 1 for an axis of extent 1

  /// Fills one axis for a voxel at `index` of `extent` whose neighbours are `stride` apart.
  CINNABAR_HD void set_axis(int axis, std::int64_t index, std::int64_t extent, std::int64_t stride) {
    const bool has_minus = index > 0;
    const bool has_plus = index + 1 < extent;
    minus[axis] = has_minus ? -stride : 0;
    plus[axis] = has_plus ? stride : 0;
    minus_sign[axis] = has_minus ? T(1) : T(-1);
    plus_sign[axis] = has_plus ? T(1) : T(-1);
    identity[axis] = extent == 1 || (has_minus && has_plus) ? T(1) : T(0.5);
  }

  /// D_axis f at the voxel f points to.
  CINNABAR_HD T difference(const T* f, int axis) const { return T(0.5) * (f[plus[axis]] - f[minus[axis]]); }

  /// The transpose of D_axis, as a gather.
  CINNABAR_HD T transposed(const T* f, int axis) const {
    return T(0.5) * (minus_sign[axis] * f[minus[axis]] - plus_sign[axis] * f[plus[axis]]);
  }

  /// D_axis of a product of two fields, and its transpose.
  CINNABAR_HD T difference(const T* f, const T* g, int axis) const {
    return T(0.5) * (f[plus[axis]] * g[plus[axis]] - f[minus[axis]] * g[minus[axis]]);
  }
  CINNABAR_HD T transposed(const T* f, const T* g, int axis) const {
    return T(0.5) * (minus_sign[axis] * f[minus[axis]] * g[minus[axis]] -
                     plus_sign[axis] * f[plus[axis]] * g[plus[axis]]);
  }

  /// Weight that turns D_axis into true one-sided differences on faces.
  CINNABAR_HD T face_scale(int axis) const { return minus[axis] != 0 && plus[axis] != 0 ? T(1) : T(2); }
};

}  // namespace cinnabar
