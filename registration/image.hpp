#pragma once

#include <cstdint>
#include <string>

#include "engine/tensor.hpp"
#include "registration/geometry.hpp"

namespace cinnabar::registration {

/// Element types of files, with NIfTI's numbers.
enum class VoxelType : std::int16_t {
  u8 = 2,
  i16 = 4,
  i32 = 8,
  f32 = 16,
  f64 = 64,
  i8 = 256,
  u16 = 512,
  u32 = 768,
  i64 = 1024,
  u64 = 1280,
};

/// A scalar image. `stored` is the element type that holds its values: that of the file it came from, f32
/// where that was scaled.
struct Image {
  Tensor voxels;  ///< f32 [1, 1, D, H, W], x fastest
  Geometry geometry;
  std::string path;
  VoxelType stored = VoxelType::f32;
};

/// A segmentation. Values are exact integers whatever type the file used; 0 is background.
struct LabelImage {
  Tensor labels;  ///< i32 [1, 1, D, H, W], x fastest
  Geometry geometry;
  std::string path;
  VoxelType stored = VoxelType::u8;
};

/// A map given by displacements on a grid: the point x of the grid's (fixed) space goes to x + u(x) in the
/// moving space. Vectors are RAS millimetres whatever the file used.
struct DisplacementField {
  Tensor vectors;  ///< f32 [1, 3, D, H, W], components x, y, z in RAS mm
  Geometry geometry;
  std::string path;
};

/// Displacements given in voxels of `grid` (components along its x, y, z axes) as RAS mm.
DisplacementField field_from_voxel_displacement(const Tensor& voxel_displacement, const Geometry& grid);

/// The reverse: f32 [1, 3, D, H, W] in voxels of the field's own grid.
Tensor voxel_displacement(const DisplacementField& field);

/// Throws InputError when all voxels are equal: nothing could be registered.
void require_contrast(const Image& image);

/// The image with outliers clipped: what lies more than ten times the range of all but a thousandth of the
/// voxels beyond that range, such as a broken voxel of 1e30, takes the value there. Usually nothing does, and
/// the result shares its voxels.
Image without_outliers(const Image& image);

}  // namespace cinnabar::registration
