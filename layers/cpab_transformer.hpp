#pragma once

#include "autograd/cpab.hpp"

namespace cinnabar {

/// Warps images by CPAB flows: the transformer of Detlefsen, Freifeld and Hauberg ("Deep diffeomorphic
/// transformer networks", CVPR 2018). A field of d dimensions acts on signals [N, C, W] (d = 1), images
/// [N, C, H, W] (2) or volumes [N, C, D, H, W] (3). The domain [0, 1] of an axis runs from its first to its
/// last voxel centre.
///
///   CpabTransformer warp({4, 4});
///   Variable theta(Tensor::zeros({1, warp.space().dim()}), true);  // the identity
///   mse_loss(warp(moving, theta), target).backward();
class CpabTransformer {
 public:
  /// Arguments are those of CpabSpace; images and theta are to be of this dtype and on this device.
  explicit CpabTransformer(const std::vector<std::int32_t>& boxes, const CpabConstraints& constraints = {},
                           const CpabOptions& options = {}, DType dtype = DType::f32,
                           Device device = Device::cpu(),
                           CpabParameters parameters = CpabParameters::orthonormal);

  const CpabSpace& space() const { return space_; }

  /// images o T_theta: each voxel takes the value at the place to which the flow of theta [N, dim] brings it,
  /// linearly interpolated; beyond the border that of the border. A single image serves any N. -theta is the
  /// inverse. Differentiable in both.
  Variable operator()(const Variable& images, const Variable& theta) const;

  /// Those places, for images of the extents (D, H, W), (H, W) or (W): [N, (D,) (H,) W, d], coordinates x, y,
  /// z from -1 at the first to 1 at the last voxel centre, as grid_sample takes them with align_corners.
  Variable grid(const Variable& theta, const Shape& spatial) const;

 private:
  CpabSpace space_;
  CpabOptions options_;
};

}  // namespace cinnabar
