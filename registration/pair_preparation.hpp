#pragma once

#include "models/lddmm_matching.hpp"
#include "registration/image.hpp"

namespace cinnabar::registration {

struct PreparationOptions {
  double resolution_mm = 0.0;  ///< spacing of the registration grid; 0 takes the fixed image's smallest
  bool crop = true;            ///< leave out background farther than `margin_voxels` from both heads
  int margin_voxels = 8;
  bool match_histograms =
      true;  ///< map the moving intensities to the fixed image's distribution (SSD needs it)
  Device device;
};

/// A pair on the grid where the geodesic lives: isotropic, along the fixed image's axes. Intensities are
/// scaled to [0, 1] by robust percentiles; the originals are kept for the outputs.
struct PreparedPair {
  Geometry grid;
  ImagePair pair;
  Tensor mask;  ///< the fixed mask on the grid, or undefined
};

/// Brings both images to the registration grid, the moving one pulled back through `fixed_to_moving`.
PreparedPair prepare_pair(const Image& fixed, const Image& moving, const Image* fixed_mask,
                          const Matrix4& fixed_to_moving, const PreparationOptions& options);

/// The grid prepare_pair would use before cropping.
Geometry registration_grid(const Image& fixed, double resolution_mm);

}  // namespace cinnabar::registration
