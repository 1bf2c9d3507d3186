#pragma once

#include <cstdint>
#include <filesystem>
#include <utility>
#include <vector>

#include "registration/image.hpp"

namespace cinnabar::registration {

/// The image mirrored left to right: its voxels in reverse order along the grid axis that is nearest to the
/// world's left-right axis, on the same grid. The mirror plane is the middle of the field of view.
Image mirrored(const Image& image);

/// Pairs of labels that name the same structure on either side.
using LabelPairs = std::vector<std::pair<std::int32_t, std::int32_t>>;

/// A segmentation mirrored likewise, where the labels of each pair change places, so that a structure on the
/// left still has its left label.
LabelImage mirrored(const LabelImage& image, const LabelPairs& pairs);

/// Reads a table with a label and its name on each line ("37 Hippocampus_L 4101"; what follows the name is
/// ignored, so are empty lines and lines that start with '#'), and pairs the labels whose names differ only
/// in a final "_L" and "_R". Throws InputError, with file and line, for anything else, and when there is no
/// pair.
LabelPairs read_label_pairs(const std::filesystem::path& path);

}  // namespace cinnabar::registration
