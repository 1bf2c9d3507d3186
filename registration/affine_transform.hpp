#pragma once

#include <filesystem>

#include "registration/matrix4.hpp"

namespace cinnabar::registration {

/// An affine map of points of the fixed space to points of the moving space (the direction in which images
/// are pulled), in RAS mm. The centre is the fixed point that ITK files write rotation and shift about; it
/// does not change the map.
struct Affine {
  Matrix4 matrix = kIdentity4;
  Point centre{0, 0, 0};
};

/// Reads, by content:
/// - ITK/ANTs binary `.mat` (Matlab v4) and text `.tfm`/`.txt` ("#Insight Transform File V1.0"), LPS, holding
///   one AffineTransform, MatrixOffsetTransformBase, Euler3DTransform, VersorRigid3DTransform,
///   Similarity3DTransform or TranslationTransform;
/// - a text file of 4x4 numbers, RAS, fixed to moving, as NiftyReg writes (refused when named `.mat`: FSL's
///   matrices look the same and mean something else).
/// Throws InputError naming the file for anything else, and when the map cannot be inverted.
Affine read_affine(const std::filesystem::path& path);

/// Writes by extension: `.mat` ITK binary, `.tfm` ITK text, `.txt` 4x4 RAS text. Others are an InputError.
void write_affine(const std::filesystem::path& path, const Affine& affine);

}  // namespace cinnabar::registration
