#include "registration/brain_slices.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>

#include "autograd/layout.hpp"
#include "registration/affine_alignment.hpp"
#include "registration/cohort.hpp"
#include "registration/input_file.hpp"
#include "registration/nifti.hpp"

namespace cinnabar::registration {

namespace {

constexpr double kLeastBrain = 400.0;  ///< mm^2 of a slice that is kept
constexpr float kBackground = 0.05f;   ///< of the 99th percentile: up to here nothing is brain
constexpr double kBrightest = 1.2;     ///< intensities are cut off there

/// The value that 99 % of the positive intensities do not exceed; 0 where there are none.
float bright_value(const Tensor& voxels) {
  const float* values = voxels.data<float>();
  std::vector<float> positive;
  for (std::int64_t i = 0; i < voxels.numel(); ++i) {
    if (values[i] > 0.0f) positive.push_back(values[i]);
  }
  if (positive.empty()) return 0.0f;
  const auto nth = positive.begin() + static_cast<std::ptrdiff_t>(positive.size() * 99 / 100);
  std::nth_element(positive.begin(), nth, positive.end());
  return *nth;
}

/// Slices along z by how many pixels are brain, and the middle of the brain along x and y.
struct BrainExtent {
  std::int64_t first = 0, end = 0;  ///< slices with enough brain
  std::array<std::int64_t, 2> middle{};
};

BrainExtent extent_of(const Tensor& voxels, double least_pixels) {
  const Shape& shape = voxels.shape();
  const float* values = voxels.data<float>();
  BrainExtent extent{shape[2], 0, {}};
  std::array<std::int64_t, 2> low{shape[4], shape[3]}, high{-1, -1};
  std::vector<std::int64_t> counts(static_cast<std::size_t>(shape[2]), 0);
  for (std::int64_t i = 0; i < voxels.numel(); ++i) {
    if (values[i] <= kBackground) continue;
    const std::array<std::int64_t, 2> at{i % shape[4], i / shape[4] % shape[3]};
    ++counts[static_cast<std::size_t>(i / (shape[4] * shape[3]))];
    for (std::size_t axis = 0; axis < 2; ++axis) {
      low[axis] = std::min(low[axis], at[axis]);
      high[axis] = std::max(high[axis], at[axis]);
    }
  }
  for (std::int64_t z = 0; z < shape[2]; ++z) {
    if (static_cast<double>(counts[static_cast<std::size_t>(z)]) < least_pixels) continue;
    extent.first = std::min(extent.first, z);
    extent.end = z + 1;
  }
  for (std::size_t axis = 0; axis < 2; ++axis) extent.middle[axis] = (low[axis] + high[axis] + 1) / 2;
  return extent;
}

/// The scan's field of view in right-anterior-superior order with these voxels.
Geometry slice_grid(const Geometry& scan, const SliceOptions& options) {
  const Geometry cubes = isotropic_grid(canonical(scan), options.pixel_mm);
  std::array<std::int64_t, 3> extent = cubes.extent;
  extent[2] = std::max<std::int64_t>(
      1, std::llround(static_cast<double>(extent[2]) * options.pixel_mm / options.distance_mm));
  return resized(cubes, extent);
}

LabelledImages joined(const std::vector<LabelledImages>& parts) {
  std::vector<Variable> images;
  std::vector<std::int64_t> labels;
  for (const LabelledImages& part : parts) {
    images.emplace_back(part.images);
    const std::vector<std::int64_t> more = part.labels.to_vector<std::int64_t>();
    labels.insert(labels.end(), more.begin(), more.end());
  }
  return {concat(images, 0).value(), Tensor::from(labels, {static_cast<std::int64_t>(labels.size())})};
}

Tensor mirrored(const Tensor& images) {
  Tensor result = Tensor::empty_like(images);
  const std::int64_t width = images.shape(-1);
  const float* from = images.data<float>();
  float* to = result.data<float>();
  for (std::int64_t i = 0; i < images.numel(); ++i) to[i] = from[i - i % width + (width - 1 - i % width)];
  return result;
}

SliceSplit split_one(const LabelledImages& all) {
  std::vector<LabelledImages> training, test;
  for (std::int64_t i = 0; i < all.images.shape(0); ++i) {
    const Tensor label = all.labels.rows(i, 1), image = all.images.rows(i, 1);
    if (i % 3 == 1) {
      test.push_back({mirrored(image), label});
    } else {
      training.push_back({image, label});
    }
  }
  return {joined(training), joined(test),
          "one scan: two of three slices are trained on, every third one, mirrored, is tested on; "
          "accuracies say nothing about other brains"};
}

std::string sides(std::size_t training, std::size_t test) {
  return detail::concat(training, " scans to train on, ", test, " others to test on");
}

}  // namespace

LabelledImages axial_slices(const Image& scan, const SliceOptions& options) {
  const Geometry grid = slice_grid(scan.geometry, options);
  Tensor voxels = resample(scan, grid, kIdentity4, Device::cpu());
  const float bright = bright_value(voxels);
  if (!(bright > 0.0f)) fail_input(scan.path, ": there is no brain to see: all intensities are 0 or below");
  float* values = voxels.data<float>();
  for (std::int64_t i = 0; i < voxels.numel(); ++i) {
    values[i] = std::clamp(values[i] / bright, 0.0f, static_cast<float>(kBrightest));
  }
  const BrainExtent brain = extent_of(voxels, kLeastBrain / (options.pixel_mm * options.pixel_mm));
  const std::int64_t count = brain.end - brain.first;
  if (count < options.levels) {
    fail_input(scan.path, ": shows brain on ", std::max<std::int64_t>(count, 0), " slices, too few for ",
               options.levels, " levels: give a scan of a whole, skull-stripped brain");
  }
  const std::int64_t side = options.side;
  Tensor images = Tensor::zeros({count, 1, side, side});
  std::vector<std::int64_t> labels;
  for (std::int64_t n = 0; n < count; ++n) {
    labels.push_back(n * options.levels / count);
    for (std::int64_t y = 0; y < side; ++y) {
      for (std::int64_t x = 0; x < side; ++x) {
        const std::int64_t from_x = brain.middle[0] - side / 2 + x, from_y = brain.middle[1] - side / 2 + y;
        if (from_x < 0 || from_y < 0 || from_x >= grid.extent[0] || from_y >= grid.extent[1]) continue;
        images.data<float>()[(n * side + y) * side + x] =
            values[((brain.first + n) * grid.extent[1] + from_y) * grid.extent[0] + from_x];
      }
    }
  }
  return {images, Tensor::from(labels, {count})};
}

SliceSplit split_slices(const std::vector<std::filesystem::path>& scans, const SliceOptions& options) {
  CINNABAR_CHECK(!scans.empty(), "split_slices", "needs a scan");
  std::vector<LabelledImages> training, test;
  for (std::size_t i = 0; i < scans.size(); ++i) {
    const LabelledImages slices = axial_slices(read_image(scans[i]), options);
    if (scans.size() == 1) return split_one(slices);
    const bool tested = scans.size() == 2 ? i == 1 : i % 3 == 2;
    (tested ? test : training).push_back(slices);
  }
  return {joined(training), joined(test), sides(training.size(), test.size())};
}

SliceStacks stack_slices(const std::vector<std::filesystem::path>& scans, const SliceOptions& options) {
  if (scans.size() < 6) {
    fail_input("too few scans to match slices across subjects, ", scans.size(), ": give six or more, every ",
               "third of which is tested on");
  }
  SliceStacks stacks;
  for (std::size_t i = 0; i < scans.size(); ++i) {
    const Tensor images = axial_slices(read_image(scans[i]), options).images;
    (i % 3 == 2 ? stacks.test : stacks.training).push_back(images);
  }
  stacks.description = sides(stacks.training.size(), stacks.test.size());
  return stacks;
}

std::vector<std::filesystem::path> scans_of(const std::vector<std::string>& arguments) {
  std::vector<std::filesystem::path> scans;
  for (const std::string& argument : arguments) {
    const std::filesystem::path path = argument;
    if (path.extension() != ".csv") {
      scans.push_back(path);
      continue;
    }
    std::ifstream file = open_text(path, "the list of scans");
    bool header = false;
    int number = 0;
    for (std::string line; std::getline(file, line);) {
      ++number;
      if (number == 1 && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);  // as Excel begins UTF-8
      const std::string content = trimmed(line);
      if (content.empty() || content.front() == '#') continue;
      if (!header) {
        if (content != "scan") fail_input(argument, ":", number, ": the header must be: scan");
        header = true;
        continue;
      }
      scans.push_back(path.parent_path() / content);
      if (!std::filesystem::is_regular_file(scans.back())) {
        fail_input(argument, ":", number, ": the scan ", scans.back().string(),
                   " does not exist: mend its path or remove the line");
      }
    }
    if (!header) fail_input(argument, ": the list of scans is empty");
  }
  if (scans.empty()) fail_input("there are no scans: give files, or a list with one path a line");
  return scans;
}

}  // namespace cinnabar::registration
