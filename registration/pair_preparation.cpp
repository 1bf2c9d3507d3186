#include "registration/pair_preparation.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "autograd/histogram.hpp"
#include "engine/error.hpp"
#include "registration/affine_alignment.hpp"
#include "registration/nifti.hpp"

namespace cinnabar::registration {

namespace {

constexpr double kTopPercentile = 0.995;
constexpr float kForeground = 0.02f;  // of the scaled range: above the rounding of a stripped background

/// Maps the range from the background to the 99.5th percentile of the foreground onto [0, 1], clipped.
Tensor scaled_to_unit(const Tensor& image) {
  Tensor result = image.to(Device::cpu()).clone();
  float* values = result.data<float>();
  const std::int64_t count = result.numel();
  const float low = std::min(0.0f, *std::min_element(values, values + count));
  std::vector<float> foreground;
  for (std::int64_t i = 0; i < count; ++i) {
    if (values[i] > low) foreground.push_back(values[i]);
  }
  if (foreground.empty()) return Tensor::zeros_like(image);
  const auto rank = static_cast<std::ptrdiff_t>(kTopPercentile * static_cast<double>(foreground.size() - 1));
  std::nth_element(foreground.begin(), foreground.begin() + rank, foreground.end());
  const float range =
      std::max(foreground[static_cast<std::size_t>(rank)] - low, std::numeric_limits<float>::min());
  for (std::int64_t i = 0; i < count; ++i) values[i] = std::clamp((values[i] - low) / range, 0.0f, 1.0f);
  return result.to(image.device());
}

/// The image pulled back to a grid and scaled so.
Tensor brought_to(const Geometry& grid, const Image& image, const Matrix4& grid_to_image, Device device) {
  return scaled_to_unit(resample(image, grid, grid_to_image, device));
}

/// First and last index along x, y, z of voxels in the foreground of either image.
struct Box {
  std::array<std::int64_t, 3> first{std::numeric_limits<std::int64_t>::max(),
                                    std::numeric_limits<std::int64_t>::max(),
                                    std::numeric_limits<std::int64_t>::max()};
  std::array<std::int64_t, 3> last{-1, -1, -1};

  void add(const Tensor& image) {
    const Tensor host = image.to(Device::cpu());
    const float* value = host.data<float>();
    for (std::int64_t z = 0; z < host.shape(2); ++z) {
      for (std::int64_t y = 0; y < host.shape(3); ++y) {
        for (std::int64_t x = 0; x < host.shape(4); ++x) {
          if (*value++ <= kForeground) continue;
          const std::array<std::int64_t, 3> at{x, y, z};
          for (std::size_t d = 0; d < 3; ++d) {
            first[d] = std::min(first[d], at[d]);
            last[d] = std::max(last[d], at[d]);
          }
        }
      }
    }
  }
};

/// The box with a margin on every side, also beyond the field of view: velocities must have died down at the
/// faces of the grid, where fields count as zero outside.
Geometry around(const Box& box, const Geometry& grid, double margin_mm) {
  const auto margin =
      std::max<std::int64_t>(3, static_cast<std::int64_t>(std::ceil(margin_mm / grid.spacing_mm()[0])));
  std::array<std::int64_t, 3> first{}, extent{};
  for (std::size_t d = 0; d < 3; ++d) {
    if (box.last[d] < 0) return grid;
    first[d] = box.first[d] - margin;
    extent[d] = box.last[d] + 1 + margin - first[d];
  }
  return cropped(grid, first, extent);
}

}  // namespace

double head_volume_mm3(const Image& image) {
  const Tensor scaled = scaled_to_unit(image.voxels);
  const float* value = scaled.data<float>();
  const auto voxels = std::count_if(value, value + scaled.numel(), [](float v) { return v > kForeground; });
  return static_cast<double>(voxels) * std::abs(image.geometry.determinant());
}

Image read_scan(const std::filesystem::path& path) {
  const Image image = read_image(path);
  require_contrast(image);
  return without_outliers(image);
}

Geometry registration_grid(const Image& fixed, const PreparationOptions& options) {
  double spacing = options.resolution_mm;
  if (spacing <= 0.0 && options.head_voxels > 0.0) {
    spacing = std::cbrt(head_volume_mm3(fixed) / options.head_voxels);
  } else if (spacing <= 0.0) {
    spacing = fixed.geometry.finest_spacing_mm();
  }
  const Point own = fixed.geometry.spacing_mm();
  double voxels = 1.0;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const double extent = static_cast<double>(fixed.geometry.extent[axis]) * own[axis] / spacing;
    if (extent < 2.0) {
      fail_input(fixed.path, ": on a grid of ", spacing,
                 " mm it has fewer than two voxels along an axis: ", "use a finer --resolution");
    }
    voxels *= extent;
  }
  if (voxels > 1e12) {
    fail_input(fixed.path, ": a grid of ", spacing, " mm has ", voxels,
               " voxels: use a coarser --resolution");
  }
  return isotropic_grid(canonical(fixed.geometry), spacing);
}

PreparedPair prepare_pair_on(const Geometry& grid, const Image& fixed, const Image& moving,
                             const Image* fixed_mask, const Matrix4& fixed_to_moving,
                             const PreparationOptions& options) {
  PreparedPair result;
  result.grid = grid;
  result.pair = {brought_to(grid, moving, fixed_to_moving, options.device),
                 brought_to(grid, fixed, kIdentity4, options.device)};
  if (options.match_histograms) {
    result.pair.moving = match_histogram(result.pair.moving, result.pair.fixed);
  }
  if (fixed_mask != nullptr) result.mask = resample(*fixed_mask, grid, kIdentity4, options.device);
  return result;
}

Geometry pair_grid(const Image& fixed, const Image& moving, const Matrix4& fixed_to_moving,
                   const PreparationOptions& options) {
  const Geometry grid = registration_grid(fixed, options);
  if (!options.crop) return grid;
  Box box;
  box.add(brought_to(grid, fixed, kIdentity4, options.device));
  box.add(brought_to(grid, moving, fixed_to_moving, options.device));
  return around(box, grid, options.margin_mm);
}

PreparedPair prepare_pair(const Image& fixed, const Image& moving, const Image* fixed_mask,
                          const Matrix4& fixed_to_moving, const PreparationOptions& options) {
  const Geometry grid = pair_grid(fixed, moving, fixed_to_moving, options);
  return prepare_pair_on(grid, fixed, moving, fixed_mask, fixed_to_moving, options);
}

}  // namespace cinnabar::registration
