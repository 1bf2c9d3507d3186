#pragma once

#include <filesystem>
#include <vector>

#include "autograd/variable.hpp"

namespace cinnabar::registration {

/// Writes images side by side as a grey PNG file, 0 black and 1 white. Images are [1, 1, H, W], or [1, 1, D,
/// H, W] of which the middle slice is shown, f32 and all of one shape. Row 0 is at the bottom, as scans have
/// it. Throws InputError where the file cannot be written.
void write_slices(const std::filesystem::path& path, const std::vector<Tensor>& images);
/// The same in rows of `columns` images, each voxel `scale` pixels wide, with lines over those images for
/// which they are defined: [..., d], where the points of grid_lines have gone.
void write_slices(const std::filesystem::path& path, const std::vector<Variable>& images,
                  const std::vector<Variable>& lines, std::int64_t columns, std::int64_t scale);

/// Points [P, dims] of `count` lines along x and as many along y over the unit square, in 3-D at z = 1/2,
/// line by line: x, y(, z), 0 at the centre of the first and 1 at that of the last voxel.
Tensor grid_lines(std::int64_t count, int dims);
/// Where a displacement u [1, 3, D, H, W] in voxels takes such points [P, 3], in the same coordinates.
Variable displaced(const Variable& points, const Variable& u);

}  // namespace cinnabar::registration
