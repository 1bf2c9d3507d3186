#include "registration/slice_view.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string_view>

#include "registration/sampling.hpp"

namespace cinnabar::registration {

namespace {

/// For each world axis (R, A, S) the voxel axis nearest to it, and +1 or -1 for the way it runs.
struct AnatomicalAxes {
  std::array<std::size_t, 3> voxel_axis{};
  std::array<double, 3> sign{};
};

AnatomicalAxes anatomical_axes(const Geometry& geometry) {
  const std::string letters = geometry.orientation();
  AnatomicalAxes axes;
  for (std::size_t k = 0; k < 3; ++k) {
    const std::size_t found = std::string_view("RASLPI").find(letters[k]);
    const std::size_t world = found % 3;
    axes.voxel_axis[world] = k;
    axes.sign[world] = found < 3 ? 1.0 : -1.0;
  }
  return axes;
}

/// Values of at most about a million voxels, sorted.
std::vector<float> sorted_sample(const Tensor& voxels, float above) {
  const Tensor host = voxels.to(Device::cpu());
  const float* values = host.data<float>();
  const std::int64_t step = std::max<std::int64_t>(1, host.numel() / 1000000);
  std::vector<float> sample;
  for (std::int64_t i = 0; i < host.numel(); i += step) {
    if (values[i] > above) sample.push_back(values[i]);
  }
  std::sort(sample.begin(), sample.end());
  return sample;
}

float quantile(const std::vector<float>& sorted, double share) {
  return sorted[static_cast<std::size_t>(share * static_cast<double>(sorted.size() - 1))];
}

/// First and last voxel along each axis of what is not background, up to a thousandth of it.
std::array<std::array<double, 2>, 3> foreground_box(const Image& image, const IntensityWindow& window) {
  const Tensor host = image.voxels.to(Device::cpu());
  const float* values = host.data<float>();
  const std::array<std::int64_t, 3> extent = image.geometry.extent;
  std::array<std::vector<std::int64_t>, 3> profile;
  for (std::size_t k = 0; k < 3; ++k) profile[k].assign(static_cast<std::size_t>(extent[k]), 0);
  std::int64_t total = 0;
  for (std::int64_t z = 0; z < extent[2]; ++z) {
    for (std::int64_t y = 0; y < extent[1]; ++y) {
      for (std::int64_t x = 0; x < extent[0]; ++x) {
        if (window(values[(z * extent[1] + y) * extent[0] + x]) < 0.12f) continue;
        ++profile[0][static_cast<std::size_t>(x)];
        ++profile[1][static_cast<std::size_t>(y)];
        ++profile[2][static_cast<std::size_t>(z)];
        ++total;
      }
    }
  }
  std::array<std::array<double, 2>, 3> box{};
  for (std::size_t k = 0; k < 3; ++k) {
    const std::int64_t stray = total / 1000;
    std::size_t first = 0, last = profile[k].size() - 1;
    if (total > 0) {
      for (std::int64_t seen = profile[k][first]; seen <= stray; seen += profile[k][++first]) {
      }
      for (std::int64_t seen = profile[k][last]; seen <= stray; seen += profile[k][--last]) {
      }
    }
    box[k] = {static_cast<double>(first) - 0.5, static_cast<double>(last) + 0.5};
  }
  return box;
}

}  // namespace

IntensityWindow intensity_window(const Image& image) {
  const float everything = -std::numeric_limits<float>::infinity();
  const std::vector<float> all = sorted_sample(image.voxels, everything);
  if (all.empty()) return {};
  double mean = 0.0;
  for (const float value : all) mean += value;
  mean /= static_cast<double>(all.size());
  IntensityWindow window{quantile(all, 0.005), all.back()};
  // Most of a head scan is air; the white point is taken among the brighter voxels only.
  const std::vector<float> bright = sorted_sample(image.voxels, static_cast<float>(mean));
  if (!bright.empty()) window.white = quantile(bright, 0.995);
  if (!(window.white > window.black)) window.white = window.black + 1.0f;
  return window;
}

std::vector<SliceView> three_views(const Image& image, std::int64_t longest_pixels) {
  const Geometry& geometry = image.geometry;
  const AnatomicalAxes axes = anatomical_axes(geometry);
  const Point spacing = geometry.spacing_mm();
  const auto box = foreground_box(image, intensity_window(image));
  Point middle{}, size_mm{};  // by voxel axis
  for (std::size_t k = 0; k < 3; ++k) {
    middle[k] = 0.5 * (box[k][0] + box[k][1]);
    size_mm[k] = 1.08 * (box[k][1] - box[k][0]) * spacing[k];  // a margin of 4 % on each side
  }
  const double longest = *std::max_element(size_mm.begin(), size_mm.end());
  const double mm_per_pixel = longest / static_cast<double>(longest_pixels);

  struct Plane {
    const char* name;
    std::size_t across, up;  // world axes
    char left, right;
  };
  constexpr Plane kPlanes[] = {
      {"AXIAL", 0, 1, 'R', 'L'}, {"CORONAL", 0, 2, 'R', 'L'}, {"SAGITTAL", 1, 2, 'A', 'P'}};
  const double widest = std::max(size_mm[axes.voxel_axis[0]], size_mm[axes.voxel_axis[1]]);
  const std::int64_t width = std::max<std::int64_t>(8, std::llround(widest / mm_per_pixel));
  std::vector<SliceView> views;
  for (const Plane& plane : kPlanes) {
    SliceView view;
    view.name = plane.name;
    view.left = plane.left;
    view.right = plane.right;
    view.mm_per_pixel = mm_per_pixel;
    const std::size_t h = axes.voxel_axis[plane.across], v = axes.voxel_axis[plane.up];
    view.width = width;
    view.height = std::max<std::int64_t>(8, std::llround(size_mm[v] / mm_per_pixel));
    // Every axis runs towards L, P or I as columns and rows grow.
    Matrix4 to_voxel{};
    to_voxel[15] = 1.0;
    const double column_step = -axes.sign[plane.across] * mm_per_pixel / spacing[h];
    const double row_step = -axes.sign[plane.up] * mm_per_pixel / spacing[v];
    to_voxel[h * 4 + 0] = column_step;
    to_voxel[v * 4 + 1] = row_step;
    for (std::size_t k = 0; k < 3; ++k) to_voxel[k * 4 + 3] = middle[k];
    to_voxel[h * 4 + 3] -= column_step * 0.5 * static_cast<double>(view.width - 1);
    to_voxel[v * 4 + 3] -= row_step * 0.5 * static_cast<double>(view.height - 1);
    view.pixel_to_world = multiply(geometry.voxel_to_world, to_voxel);
    const std::array<double, 9> direction = geometry.direction();
    for (std::size_t row = 0; row < 3; ++row) {
      view.across[row] = axes.sign[plane.across] * direction[row * 3 + h];
      view.up[row] = axes.sign[plane.up] * direction[row * 3 + v];
    }
    views.push_back(view);
  }
  return views;
}

std::vector<float> sample_slice(const Tensor& channels, std::int64_t channel, const Geometry& geometry,
                                const SliceView& view, float outside) {
  const Tensor host = channels.to(Device::cpu()).to(DType::f32);
  CINNABAR_CHECK(channel < host.shape(1) && host.shape() == geometry.shape(host.shape(1)), "sample_slice",
                 "channel ", channel, " of ", host, " on a grid of ", geometry.shape());
  const float* values = host.data<float>() + channel * geometry.voxels();
  const Matrix4 to_voxel = multiply(geometry.world_to_voxel(), view.pixel_to_world);
  std::vector<float> result;
  result.reserve(static_cast<std::size_t>(view.width * view.height));
  for (std::int64_t row = 0; row < view.height; ++row) {
    for (std::int64_t column = 0; column < view.width; ++column) {
      const Point voxel =
          transform_point(to_voxel, {static_cast<double>(column), static_cast<double>(row), 0.0});
      const bool inside = is_inside(geometry.extent, voxel);
      result.push_back(inside ? static_cast<float>(weighted_sum(neighbours(geometry.extent, voxel), values))
                              : outside);
    }
  }
  return result;
}

Colour diverging_colour(float value) {
  // Stops at |value| = 0, 1/2 and 1; lightness grows evenly from the dark middle to both ends.
  constexpr Colour kMiddle{0.07f, 0.075f, 0.09f};
  constexpr std::array<Colour, 2> kNegative{{{0.16f, 0.42f, 0.80f}, {0.72f, 0.91f, 1.0f}}};
  constexpr std::array<Colour, 2> kPositive{{{0.80f, 0.25f, 0.16f}, {1.0f, 0.86f, 0.66f}}};
  const auto& side = value < 0.0f ? kNegative : kPositive;
  const float distance = std::min(2.0f * std::abs(value), 2.0f);
  const Colour& from = distance < 1.0f ? kMiddle : side[0];
  const Colour& to = distance < 1.0f ? side[0] : side[1];
  const float share = distance < 1.0f ? distance : distance - 1.0f;
  Colour mixed{};
  for (std::size_t c = 0; c < 3; ++c) mixed[c] = from[c] + share * (to[c] - from[c]);
  return mixed;
}

}  // namespace cinnabar::registration
