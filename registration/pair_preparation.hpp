#pragma once

#include <filesystem>

#include "models/lddmm_matching.hpp"
#include "registration/image.hpp"

namespace cinnabar::registration {

struct PreparationOptions {
  double resolution_mm = 0.0;  ///< spacing of the registration grid; 0 takes the fixed image's smallest
  /// Where above 0 and without resolution_mm: the spacing with which the fixed head has that many voxels,
  /// whatever unit its file is in. Networks see heads of the size they were trained on.
  double head_voxels = 0.0;
  bool crop = true;         ///< leave out background farther than the margin from both heads
  double margin_mm = 12.0;  ///< at least three voxels
  /// Map the moving intensities to the fixed image's distribution (SSD needs it).
  bool match_histograms = true;
  Device device;
};

/// A pair on the grid where the geodesic lives, or on a finer one: isotropic, along the fixed image's axes in
/// the order right, anterior, superior. Intensities are scaled to [0, 1] by robust percentiles; the originals
/// are kept for the outputs.
struct PreparedPair {
  Geometry grid;
  ImagePair pair;
  Tensor mask;  ///< the fixed mask on the grid, or undefined
};

/// Reads a scan to be registered, without outliers. Throws InputError where it has no contrast.
Image read_scan(const std::filesystem::path& path);

/// The grid before it is cropped.
Geometry registration_grid(const Image& fixed, const PreparationOptions& options);

/// The registration grid of a pair, with the moving image pulled back through `fixed_to_moving`.
Geometry pair_grid(const Image& fixed, const Image& moving, const Matrix4& fixed_to_moving,
                   const PreparationOptions& options);

/// Brings both images to their registration grid.
PreparedPair prepare_pair(const Image& fixed, const Image& moving, const Image* fixed_mask,
                          const Matrix4& fixed_to_moving, const PreparationOptions& options);

/// Brings both images to that grid.
PreparedPair prepare_pair_on(const Geometry& grid, const Image& fixed, const Image& moving,
                             const Image* fixed_mask, const Matrix4& fixed_to_moving,
                             const PreparationOptions& options);

/// Volume of what is not background.
double head_volume_mm3(const Image& image);

}  // namespace cinnabar::registration
