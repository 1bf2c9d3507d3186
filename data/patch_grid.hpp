#pragma once

#include <vector>

#include "engine/tensor.hpp"

namespace cinnabar {

/// How a volume is tiled: extents of a patch and the distance of neighbours, both along (d, h, w). The
/// defaults are those of Quicksilver (Yang et al., NeuroImage 2017).
struct PatchGrid {
  Shape patch{15, 15, 15};
  Shape stride{14, 14, 14};
};

/// First voxels of the patches along one axis: 0, stride, 2 stride, ... as long as the patch fits, and one
/// more that ends with the axis where those leave a rest. An axis shorter than the patch has the start 0.
std::vector<std::int64_t> grid_positions(std::int64_t extent, std::int64_t patch, std::int64_t stride);

/// The starts [N, 4] i32 on the CPU (kernels/patches.hpp) of all patches of a volume of extents (D, H, W), x
/// fastest. `volume` is its index.
Tensor grid_starts(const Shape& spatial, const PatchGrid& grid, std::int64_t volume = 0);

struct ForegroundOptions {
  /// Never choose the first patch of the list, whatever it holds: the original program of Quicksilver skips
  /// it by mistake, and its results can only be repeated so.
  bool skip_first = false;
};

/// The rows of `starts` whose patches are not background: where the sum over all voxels of all images is
/// not 0 (a NaN counts as foreground). Images are [V, C, D, H, W] of a floating dtype on one device, where
/// the sums are made. The result is on the CPU.
Tensor foreground_starts(const std::vector<Tensor>& images, const Tensor& starts, const Shape& patch,
                         const ForegroundOptions& options = {});

}  // namespace cinnabar
