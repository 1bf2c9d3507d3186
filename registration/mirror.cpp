#include "registration/mirror.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <unordered_map>

#include "kernels/parallel.hpp"
#include "registration/input_file.hpp"

namespace cinnabar::registration {
namespace {

std::size_t left_right_axis(const Geometry& geometry) {
  const std::array<double, 9> direction = geometry.direction();  // its first row is the world's x
  const auto nearest = std::max_element(direction.begin(), direction.begin() + 3,
                                        [](double a, double b) { return std::abs(a) < std::abs(b); });
  return static_cast<std::size_t>(nearest - direction.begin());
}

/// Writes change(source voxel) at each voxel's mirror position.
template <class T, class Change>
void mirror_into(const Geometry& geometry, const T* source, T* target, const Change& change) {
  const std::int64_t width = geometry.extent[0], height = geometry.extent[1], depth = geometry.extent[2];
  const std::size_t axis = left_right_axis(geometry);
  parallel_for(height * depth, 64, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) {
      const std::int64_t y = row % height, z = row / height;
      const std::int64_t source_y = axis == 1 ? height - 1 - y : y;
      const std::int64_t source_z = axis == 2 ? depth - 1 - z : z;
      const T* from = source + (source_z * height + source_y) * width;
      T* to = target + row * width;
      for (std::int64_t x = 0; x < width; ++x) to[x] = change(from[axis == 0 ? width - 1 - x : x]);
    }
  });
}

}  // namespace

Image mirrored(const Image& image) {
  Image result = image;
  result.voxels = Tensor::empty_like(image.voxels);
  mirror_into(image.geometry, image.voxels.data<float>(), result.voxels.data<float>(),
              [](float value) { return value; });
  return result;
}

LabelImage mirrored(const LabelImage& image, const LabelPairs& pairs) {
  std::unordered_map<std::int32_t, std::int32_t> partner;
  for (const auto& [left, right] : pairs) {
    partner[left] = right;
    partner[right] = left;
  }
  CINNABAR_CHECK(partner.size() == 2 * pairs.size(), "mirror", "a label is in two pairs");
  LabelImage result = image;
  result.labels = Tensor::empty_like(image.labels);
  mirror_into(image.geometry, image.labels.data<std::int32_t>(), result.labels.data<std::int32_t>(),
              [&](std::int32_t label) {
                const auto found = partner.find(label);
                return found == partner.end() ? label : found->second;
              });
  return result;
}

LabelPairs read_label_pairs(const std::filesystem::path& path) {
  std::ifstream file = open_text(path, "the label names");
  std::map<std::string, std::int32_t> label_of;
  int line_number = 0;
  for (std::string line; std::getline(file, line);) {
    ++line_number;
    std::istringstream words(line);
    std::string number, name;
    if (!(words >> number) || number.starts_with('#')) continue;
    std::int32_t label = 0;
    const char* end = number.data() + number.size();
    const auto [stop, error] = std::from_chars(number.data(), end, label);
    if (error != std::errc{} || stop != end || !(words >> name)) {
      fail_input(path.string(), ":", line_number, ": expected a label and its name, found '", line, "'");
    }
    if (!label_of.emplace(name, label).second) {
      fail_input(path.string(), ":", line_number, ": the name '", name, "' appears twice");
    }
  }
  LabelPairs pairs;
  for (const auto& [name, label] : label_of) {
    if (!name.ends_with("_L")) continue;
    const auto right = label_of.find(name.substr(0, name.size() - 1) + "R");
    if (right != label_of.end()) pairs.emplace_back(label, right->second);
  }
  if (pairs.empty()) {
    fail_input("no two names in '", path.string(), "' differ only in a final _L and _R");
  }
  return pairs;
}

}  // namespace cinnabar::registration
