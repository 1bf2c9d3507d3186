#pragma once

#include <cstddef>
#include <filesystem>
#include <vector>

#include "registration/image.hpp"

namespace cinnabar::registration {

/// What a registration did, for a picture. The images may lie on any grids; they are shown in world space on
/// the planes of `fixed`.
struct MosaicInput {
  Image fixed;
  Image moving;             ///< aligned by the affine step alone
  Image warped;             ///< aligned by everything
  DisplacementField field;  ///< the deformation without the affine
};

/// PNG of axial, coronal and sagittal planes (rows) with fixed, moving and warped image, the differences
/// before and after, the deformed grid and the logarithm of the Jacobian (columns). Dark background, one
/// scale of mm for all panels, legends below.
std::vector<std::byte> draw_mosaic(const MosaicInput& input);

}  // namespace cinnabar::registration
