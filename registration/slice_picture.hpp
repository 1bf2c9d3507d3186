#pragma once

#include <filesystem>
#include <vector>

#include "engine/tensor.hpp"

namespace cinnabar::registration {

/// Writes images side by side as a grey PNG file, 0 black and 1 white. Images are [1, 1, H, W], or [1, 1, D,
/// H, W] of which the middle slice is shown, f32 and all of one shape. Row 0 is at the bottom, as scans have
/// it. Throws InputError where the file cannot be written.
void write_slices(const std::filesystem::path& path, const std::vector<Tensor>& images);

}  // namespace cinnabar::registration
