#pragma once

#include <memory>
#include <vector>

#include "kernels/grid_sample.hpp"
#include "layers/sequential.hpp"

namespace cinnabar {

enum class UnetDownsampling {
  stride,    ///< the first convolution of a level has stride 2
  max_pool,  ///< windows of 2 voxels, the last one partly outside where an extent is odd
};

enum class UnetActivation {
  leaky_relu,  ///< slope 0.2, as VoxelMorph's
  prelu,       ///< one learned slope a layer
};

struct UnetOptions {
  std::int64_t in = 1;
  std::int64_t out = 1;
  /// Channels of the levels on the way down, from the full resolution on; each further one halves the
  /// extents. At least one level.
  std::vector<std::int64_t> encoder{16, 32, 32};
  /// Channels of the levels on the way up, from the full resolution on: one less than `encoder` has, or empty
  /// for the same as there.
  std::vector<std::int64_t> decoder = {};
  std::int64_t convolutions = 2;  ///< of a level, on the way down and on the way up
  std::int64_t kernel = 3;        ///< taps along an axis, odd
  int axes = 3;                   ///< 2: images [N, C, 1, H, W]
  UnetDownsampling downsampling = UnetDownsampling::stride;
  Interpolation upsampling = Interpolation::linear;
  UnetActivation activation = UnetActivation::leaky_relu;
  /// Level that the output has the extents of: 0 is the full resolution, 1 half of it. The way up ends there,
  /// and entries of `decoder` before it are not used.
  std::int64_t output_level = 0;
  /// Factor of the output's initial weights. A network of velocities starts near zero with a small one.
  double output_scale = 1.0;
  std::uint64_t seed = 0;  ///< of the initial weights
};

/// U-Net (Ronneberger, Fischer and Brox, MICCAI 2015, fig. 1), in VoxelMorph's form (Balakrishnan et al.,
/// IEEE TMI 2019, fig. 3): [N, in, D, H, W] to [N, out, D, H, W], or smaller extents where the way up ends
/// earlier. On the way down a level is a few
/// convolutions, each with an activation; on the way up, features are doubled in extent, joined with those
/// that the level had on the way down ([doubled, skipped]), and convolved. A last convolution of one tap has
/// no activation.
///
/// Extents of any size: n voxels become (n + 1) / 2, rounded down, voxel i of which lies at 2 i (stride) or
/// covers 2 i and 2 i + 1 (max_pool), and what doubles to n + 1 loses its last voxel.
///
/// Children "encoder0", "decoder0" (0 is the full resolution) and "output"; those of the levels are numbered.
/// Weights start as He et al. have them (ICCV 2015), biases at zero.
class Unet : public Layer {
 public:
  explicit Unet(const UnetOptions& options);
  Variable forward(const Variable& x) override;

  const UnetOptions& options() const { return options_; }

 private:
  const UnetOptions options_;
  std::vector<std::unique_ptr<Sequential>> encoders_, decoders_;  ///< from the full resolution on
  std::unique_ptr<Layer> output_;
};

}  // namespace cinnabar
