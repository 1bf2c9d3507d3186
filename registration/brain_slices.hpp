#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "models/slice_training.hpp"
#include "registration/image.hpp"

namespace cinnabar::registration {

struct SliceOptions {
  std::int64_t side = 48;     ///< pixels
  double pixel_mm = 4.5;      ///< 48 pixels of 4.5 mm hold a brain and leave room around it
  double distance_mm = 2.25;  ///< of one slice from the next
  std::int64_t levels = 10;   ///< parts of equal height that a brain is divided into: the classes
};

/// Axial slices of a skull-stripped scan: x to the right, y to the front, the brain in the middle; intensity
/// 1 is its 99th percentile. Slices that hardly show brain (below 4 cm^2) are left out; the label of the
/// others is their level, 0 the lowest. Throws InputError naming the scan where there is no brain to see.
LabelledImages axial_slices(const Image& scan, const SliceOptions& options = {});

/// What to learn from and what to judge by.
struct SliceSplit {
  LabelledImages training, test;
  std::string description;  ///< who is on which side, one line
};

/// Every third scan of the list is tested on and the others are trained on, so nobody is on both sides. A
/// single scan is divided too: every third slice is tested on, mirrored left to right. It then lies between
/// two slices that were trained on, so the accuracy says nothing about other brains; the description says so.
/// Two scans are one for each side. Throws InputError for an unreadable scan.
SliceSplit split_slices(const std::vector<std::filesystem::path>& scans, const SliceOptions& options = {});

/// The slices of each scan by itself.
struct SliceStacks {
  std::vector<Tensor> training, test;  ///< images of axial_slices, f32 [N, 1, side, side]
  std::string description;             ///< who is on which side, one line
};

/// Every third scan of the list is tested on. Throws InputError for fewer than six scans, for slices are
/// matched across two subjects on either side, and for an unreadable scan.
SliceStacks stack_slices(const std::vector<std::filesystem::path>& scans, const SliceOptions& options = {});

/// The scans themselves, or those of a list NAME.csv: a header `scan`, then one path a line, relative to the
/// list's folder; empty lines and lines that start with # are passed over. Throws InputError with file and
/// line where a scan does not exist, and for anything else.
std::vector<std::filesystem::path> scans_of(const std::vector<std::string>& arguments);

}  // namespace cinnabar::registration
