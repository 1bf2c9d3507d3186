#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "engine/shape.hpp"
#include "registration/matrix4.hpp"

namespace cinnabar::registration {

/// The grid of an image in the scanner's world: extents in voxels along x, y, z (x fastest in memory) and the
/// matrix from voxel centres to RAS millimetres. Directions may be oblique, left-handed or sheared.
struct Geometry {
  std::array<std::int64_t, 3> extent{1, 1, 1};
  Matrix4 voxel_to_world = kIdentity4;
  /// NIfTI's name of the space (1 scanner, 2 aligned, 3 Talairach, 4 MNI), kept from input to output.
  int space_code = 1;

  std::int64_t voxels() const { return extent[0] * extent[1] * extent[2]; }
  /// [1, channels, D, H, W].
  Shape shape(std::int64_t channels = 1) const;
  /// Distance between neighbouring voxel centres along each voxel axis.
  Point spacing_mm() const;
  /// The least of them.
  double finest_spacing_mm() const;
  /// Unit vectors of the voxel axes as columns, row-major.
  std::array<double, 9> direction() const;
  /// Signed volume of a voxel in cubic mm; negative on a left-handed grid.
  double determinant() const { return registration::determinant(voxel_to_world); }
  Matrix4 world_to_voxel() const { return invert(voxel_to_world); }
  /// World position of the middle of the field of view.
  Point centre() const;
  /// The world axis each voxel axis is nearest to, as letters of where it points: "RAS", "LIA".
  std::string orientation() const;
};

/// Grid of `extent` voxels of the given size, axis-aligned RAS, with voxel (0, 0, 0) at `origin`.
Geometry axis_aligned_grid(const std::array<std::int64_t, 3>& extent, const Point& spacing_mm,
                           const Point& origin = {0, 0, 0});

/// Equal extents, and no corner of one grid farther than `tolerance_voxels` from the other's.
bool same_grid(const Geometry& a, const Geometry& b, double tolerance_voxels = 1e-2);

/// The same voxel centres, counted along the axes that are nearest to right, anterior and superior.
Geometry canonical(const Geometry& image);

/// Isotropic voxels along the same directions, centred on the same field of view and covering all of it.
Geometry isotropic_grid(const Geometry& image, double spacing_mm);

/// The same field of view in other extents: the spacing follows, so edges (not centres) of outer voxels stay.
Geometry resized(const Geometry& image, const std::array<std::int64_t, 3>& extent);

/// A pyramid level: exactly `factor` times the spacing, ceil(extent / factor) voxels, same centre.
Geometry shrunk(const Geometry& image, double factor);

/// The same field of view with each voxel cut into factor^3.
Geometry refined(const Geometry& image, std::int64_t factor);

/// The part of a grid that starts at `first` and has `extent` voxels; may reach outside (padding).
Geometry cropped(const Geometry& image, const std::array<std::int64_t, 3>& first,
                 const std::array<std::int64_t, 3>& extent);

/// "181 x 217 x 181 voxels of 1 x 1 x 1 mm, LAS", for messages.
std::string describe(const Geometry& geometry);

}  // namespace cinnabar::registration
