#pragma once

#include "layers/grid_generator.hpp"

namespace cinnabar {

/// The flow of a stationary velocity field over unit time by scaling and squaring (Arsigny et al., MICCAI
/// 2006): u = v / 2^k, then k times u(x) <- u(x) + u(x + u(x)), linearly interpolated; beyond the border v is
/// as at the border. velocity [N, 3, D, H, W] in voxels, components x, y, z, to the displacement of phi = id
/// + u in voxels, same shape; 2-D fields have D = 1 and z components of 0. Differentiable. The flow of -v is
/// the inverse up to interpolation.
Variable integrate_velocity(const Variable& velocity, int squarings = 7);

/// T(x) = x + u(x). Parameters: u on a lattice of vectors that is linearly upsampled to the image, its
/// outermost points on the outer voxel centres: [d, (D,) H, W] of the lattice row-major, components x, y(, z)
/// in the coordinates of the grid, so that 2 crosses the image.
class DisplacementWarp : public GridGenerator {
 public:
  /// Extents (H, W) or (D, H, W) of the lattice, at least 2; those of the image for a dense field.
  DisplacementWarp(const Shape& spatial, const Shape& lattice);

 protected:
  const char* name() const override { return "displacement_warp"; }
  Variable make_grid(const Variable& parameters) const override;
  /// [N, d, (D,) H, W] at the image's extents.
  Variable vectors(const Variable& parameters) const;
  /// The identity plus such displacements.
  Variable grid_of(const Variable& displacement) const;

 private:
  Shape lattice_;
  FixedTable identity_;
};

/// T = the flow of the velocity field that the parameters describe as those of DisplacementWarp describe a
/// displacement; smooth and invertible where that field is. Negative parameters are the inverse, up to
/// interpolation.
class VelocityWarp : public DisplacementWarp {
 public:
  VelocityWarp(const Shape& spatial, const Shape& lattice, int squarings = 7);
  bool has_inverse() const override { return true; }

 private:
  const char* name() const override { return "velocity_warp"; }
  Variable make_grid(const Variable& parameters) const override;
  Variable make_inverse(const Variable& parameters) const override;

  int squarings_;
  FixedTable half_extents_;  ///< [d, 1, 1(, 1)]: voxels that 1 is
};

}  // namespace cinnabar
