#pragma once

#include "models/lddmm_matching.hpp"
#include "models/unet.hpp"

namespace cinnabar {

struct VoxelmorphOptions {
  std::int64_t features = 16;     ///< channels at the full resolution; coarser levels have twice as many
  std::int64_t levels = 5;        ///< of the U-Net, each half as fine as the one before; at least 2
  std::int64_t convolutions = 1;  ///< of a level, on the way down and on the way up
  /// The velocity lives on a grid of half the resolution, (n + 1) / 2 voxels an axis, rounded down: smoother,
  /// and an eighth of the work of the last convolutions and of the integration.
  bool half_resolution = true;
  int squarings = 7;  ///< of the integration (layers/field_warp.hpp)
  /// v = (f(moving, fixed) - f(fixed, moving)) / 2: exchanged images then have the inverse map, at twice the
  /// work.
  bool symmetric = false;
  std::uint64_t seed = 0;  ///< of the initial weights
};

/// Weights of such a network, counted without making it.
std::int64_t voxelmorph_weights(const VoxelmorphOptions& options);

/// A network that registers in one pass, in the diffeomorphic form of VoxelMorph (Dalca, Balakrishnan, Guttag
/// and Sabuncu, Medical Image Analysis 2019, without its variances): a U-Net sees both images and names a
/// stationary velocity field, the flow of which pulls the moving image to the fixed one. The start is the
/// identity but for a small fraction of a voxel. Child "unet".
class Voxelmorph : public Module {
 public:
  explicit Voxelmorph(const VoxelmorphOptions& options);

  /// Images [N, 1, D, H, W] of any extents, intensities about [0, 1], to v [N, 3, d, h, w] in voxels of its
  /// own grid, components x, y, z; d, h, w are D, H, W or half of them.
  Variable velocity(const Variable& moving, const Variable& fixed);

  const VoxelmorphOptions& options() const { return options_; }

 private:
  const VoxelmorphOptions options_;
  Unet unet_;
};

/// The displacement u of exp(v) = id + u by scaling and squaring, [N, 3, D, H, W] in voxels of the images,
/// whose extents (D, H, W) are those of the velocity or twice them, less one where they are odd.
/// Differentiable. moving(x + u(x)) resembles the fixed image; -v gives the inverse.
Variable velocity_displacement(const Variable& velocity, const Shape& spatial, int squarings);

/// A velocity in voxels of the images' grid, on that grid.
Variable velocity_at(const Variable& velocity, const Shape& spatial);

/// psi = exp(v), which pulls images, and phi = exp(-v), its inverse up to interpolation.
Flow velocity_flow(const Variable& velocity, const Shape& spatial, int squarings);

/// What the network is trained to make small: similarity + smoothness * gradient_penalty(v), with v in voxels
/// of its grid (Balakrishnan, Zhao, Sabuncu, Guttag and Dalca, IEEE TMI 2019, eqs. 5 to 8, with the penalty
/// on the velocity as in Dalca et al.). The similarity is 1 - mean squared local correlation, 1 - correlation
/// or the mean squared difference.
struct VoxelmorphLoss {
  Similarity similarity = Similarity::lncc;
  int lncc_radius = 2;  ///< half width of the window in voxels
  double smoothness = 1.0;
};

/// The weight of the smoothness that suits a similarity: 1, or 0.02 for the much smaller squared differences.
double default_smoothness(Similarity similarity);

/// Images [N, 1, D, H, W]; a scalar. The velocity of registering nothing is zero: then it is the similarity.
Variable voxelmorph_loss(const Variable& moving, const Variable& fixed, const Variable& velocity,
                         int squarings, const VoxelmorphLoss& loss);
/// Its first term, of images as they are.
Variable dissimilarity(const Variable& warped, const Variable& fixed, const VoxelmorphLoss& loss);

}  // namespace cinnabar
