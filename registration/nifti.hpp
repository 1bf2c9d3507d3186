#pragma once

#include <filesystem>

#include "registration/image.hpp"

namespace cinnabar::registration {

/// What to do with NaN and infinite voxels.
enum class NonFinite {
  reject,  ///< InputError that counts them
  zero,    ///< replaced by 0
  keep,
};

/// Reads a 3-D scalar image (or 4-D and more with one frame) from .nii or .nii.gz: NIfTI-1 or -2, either byte
/// order, every real integer and float type, scl_slope and scl_inter applied. The position comes from the
/// sform if its code is positive, else the qform, else the voxel sizes. Throws InputError (one line: file,
/// what is wrong, remedy) for anything else, and never allocates more than the file can hold.
Image read_image(const std::filesystem::path& path, NonFinite non_finite = NonFinite::reject);

/// Reads a segmentation stored in any type; a value that is no integer of 32 bits is an InputError.
LabelImage read_labels(const std::filesystem::path& path);

/// The grid alone, from the header.
Geometry read_geometry(const std::filesystem::path& path);

/// Writes sform and qform and the voxels as `type`; integers are rounded and saturate. Compressed if the name
/// ends in .gz; appears under its name only when complete.
void write_image(const std::filesystem::path& path, const Image& image, VoxelType type = VoxelType::f32);

/// Writes labels as `type`, by default the smallest of uint8, int16 and int32 that holds them all. Throws
/// InputError when the type asked for does not.
void write_labels(const std::filesystem::path& path, const LabelImage& image);
void write_labels(const std::filesystem::path& path, const LabelImage& image, VoxelType type);

/// Reads a field of displacements or positions in mm:
/// - ITK/ANTs: [X, Y, Z, 1, 3], intent 1007 (vector), LPS;
/// - intent 1006 (displacement vector): RAS;
/// - NiftyReg: intent_name "NREG_TRANS", RAS, intent_p1 0 positions or 1 displacements; other kinds (splines,
///   velocities) are refused.
/// Any other intent is refused: its convention would be a guess.
DisplacementField read_field(const std::filesystem::path& path);

/// Writes exactly what ITK and ANTs read: [X, Y, Z, 1, 3], intent 1007, float32, LPS mm.
void write_field(const std::filesystem::path& path, const DisplacementField& field);

}  // namespace cinnabar::registration
