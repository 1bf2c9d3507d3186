#pragma once

#include <string>
#include <vector>

#include "registration/image.hpp"

namespace cinnabar::registration {

enum class AffineModel { none, rigid, affine };

/// Linear alignment by NCC, coarse to fine.
struct AffineOptions {
  AffineModel model = AffineModel::affine;
  std::vector<double> resolutions_mm{8.0, 4.0,
                                     2.0};  ///< one level each; levels finer than the data are skipped
  int iterations = 60;                      ///< at most, per level and model
  Device device;
};

/// A matrix that maps points of the fixed image's world to the moving image's world (RAS mm, pull back), and
/// what it achieved on the finest level.
struct AffineAlignment {
  Matrix4 fixed_to_moving = kIdentity4;
  double ncc_before = 0.0;  ///< under the initial matrix
  double ncc_after = 0.0;
  int iterations = 0;
};

/// Aligns by maximising NCC over the fixed image's grid (inside `fixed_mask`, if given, and where the moving
/// image has data): rigid first, then all twelve parameters, each by L-BFGS through the autograd engine.
/// Starts from `initial` if given, else from the better of the header's alignment and coinciding centres of
/// mass. The result is never worse in NCC than its start.
AffineAlignment align_affine(const Image& fixed, const Image& moving, const Image* fixed_mask,
                             const Matrix4* initial, const AffineOptions& options);

/// Weighted mean position of positive intensities, RAS mm.
Point centre_of_mass(const Image& image);

/// The image, pulled back through `grid_to_image` (world to world), on another grid: trilinear, zero outside.
/// Before sampling, it is smoothed where the grid is coarser than the image.
Tensor resample(const Image& image, const Geometry& grid, const Matrix4& grid_to_image, Device device);

/// theta [1, 3, 4] for affine_grid(align_corners = false) that takes voxels of `grid` through a world matrix
/// to voxels of `image`.
Tensor sampling_theta(const Geometry& grid, const Geometry& image, const Matrix4& grid_to_image);

}  // namespace cinnabar::registration
