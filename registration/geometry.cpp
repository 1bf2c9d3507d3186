#include "registration/geometry.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "engine/error.hpp"

namespace cinnabar::registration {

namespace {

/// The grid of `extent` voxels whose axes are those of `image` times `scale`, around the same centre.
Geometry around_same_centre(const Geometry& image, const std::array<std::int64_t, 3>& extent,
                            const Point& scale) {
  Geometry result = image;
  result.extent = extent;
  Point half{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    for (std::size_t row = 0; row < 3; ++row) result.voxel_to_world[row * 4 + axis] *= scale[axis];
    half[axis] = 0.5 * static_cast<double>(extent[axis] - 1);
  }
  const Point middle = image.centre();
  const Point to_middle = transform_vector(result.voxel_to_world, half);
  for (std::size_t row = 0; row < 3; ++row) result.voxel_to_world[row * 4 + 3] = middle[row] - to_middle[row];
  return result;
}

/// ceil that forgives rounding: 128.0000001 voxels are 128.
std::int64_t voxels_to_cover(double count) {
  CINNABAR_CHECK(std::isfinite(count) && count < 1e9, "geometry", "a grid of ", count, " voxels on an axis");
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(std::ceil(count - 1e-4)));
}

/// The world axis a voxel axis is nearest to, and whether it points along it.
struct NearestAxis {
  std::size_t world_axis;
  bool positive;
};

/// Of the six ways to match voxel axes with world axes, the one with the largest sum of cosines.
std::array<NearestAxis, 3> nearest_axes(const Geometry& image) {
  static constexpr std::array<std::array<std::size_t, 3>, 6> kOrders{
      {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}};
  const std::array<double, 9> cosines = image.direction();
  double best = -1.0;
  std::array<std::size_t, 3> chosen = kOrders[0];
  for (const auto& order : kOrders) {
    double sum = 0.0;
    for (std::size_t axis = 0; axis < 3; ++axis) sum += std::abs(cosines[order[axis] * 3 + axis]);
    if (sum > best + 1e-9) {
      best = sum;
      chosen = order;
    }
  }
  std::array<NearestAxis, 3> result{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    result[axis] = {chosen[axis], cosines[chosen[axis] * 3 + axis] >= 0.0};
  }
  return result;
}

}  // namespace

Shape Geometry::shape(std::int64_t channels) const {
  return Shape({1, channels, extent[2], extent[1], extent[0]});
}

Point Geometry::spacing_mm() const {
  Point spacing{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    spacing[axis] = std::hypot(voxel_to_world[axis], voxel_to_world[4 + axis], voxel_to_world[8 + axis]);
  }
  return spacing;
}

double Geometry::finest_spacing_mm() const {
  const Point spacing = spacing_mm();
  return std::min({spacing[0], spacing[1], spacing[2]});
}

std::array<double, 9> Geometry::direction() const {
  const Point spacing = spacing_mm();
  std::array<double, 9> result{};
  for (std::size_t row = 0; row < 3; ++row) {
    for (std::size_t axis = 0; axis < 3; ++axis) {
      result[row * 3 + axis] = voxel_to_world[row * 4 + axis] / spacing[axis];
    }
  }
  return result;
}

Point Geometry::centre() const {
  return transform_point(voxel_to_world,
                         {0.5 * static_cast<double>(extent[0] - 1), 0.5 * static_cast<double>(extent[1] - 1),
                          0.5 * static_cast<double>(extent[2] - 1)});
}

std::string Geometry::orientation() const {
  std::string letters;
  for (const NearestAxis& nearest : nearest_axes(*this)) {
    letters += (nearest.positive ? "RAS" : "LPI")[nearest.world_axis];
  }
  return letters;
}

Geometry axis_aligned_grid(const std::array<std::int64_t, 3>& extent, const Point& spacing_mm,
                           const Point& origin) {
  Geometry result;
  result.extent = extent;
  result.voxel_to_world = {
      spacing_mm[0], 0, 0, origin[0], 0, spacing_mm[1], 0, origin[1], 0, 0, spacing_mm[2],
      origin[2],     0, 0, 0,         1};
  return result;
}

bool same_grid(const Geometry& a, const Geometry& b, double tolerance_voxels) {
  if (a.extent != b.extent || !is_invertible(a.voxel_to_world) || !is_invertible(b.voxel_to_world)) {
    return false;
  }
  const Matrix4 a_to_b = multiply(b.world_to_voxel(), a.voxel_to_world);
  for (int corner = 0; corner < 8; ++corner) {
    Point voxel{};
    for (std::size_t axis = 0; axis < 3; ++axis) {
      voxel[axis] = (corner >> axis & 1) != 0 ? static_cast<double>(a.extent[axis] - 1) : 0.0;
    }
    const Point mapped = transform_point(a_to_b, voxel);
    for (std::size_t axis = 0; axis < 3; ++axis) {
      if (!(std::abs(mapped[axis] - voxel[axis]) <= tolerance_voxels)) return false;
    }
  }
  return true;
}

Geometry canonical(const Geometry& image) {
  Geometry result = image;
  Point first{};  // voxel of `image` where the result starts
  const std::array<NearestAxis, 3> nearest = nearest_axes(image);
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const auto [world_axis, positive] = nearest[axis];
    result.extent[world_axis] = image.extent[axis];
    for (std::size_t row = 0; row < 3; ++row) {
      const double step = image.voxel_to_world[row * 4 + axis];
      result.voxel_to_world[row * 4 + world_axis] = positive ? step : -step;
    }
    if (!positive) first[axis] = static_cast<double>(image.extent[axis] - 1);
  }
  const Point origin = transform_point(image.voxel_to_world, first);
  for (std::size_t row = 0; row < 3; ++row) result.voxel_to_world[row * 4 + 3] = origin[row];
  return result;
}

Geometry isotropic_grid(const Geometry& image, double spacing_mm) {
  CINNABAR_CHECK(spacing_mm > 0.0 && std::isfinite(spacing_mm), "isotropic_grid", "spacing of ", spacing_mm,
                 " mm");
  const Point old_spacing = image.spacing_mm();
  std::array<std::int64_t, 3> extent{};
  Point scale{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    scale[axis] = spacing_mm / old_spacing[axis];
    extent[axis] = voxels_to_cover(static_cast<double>(image.extent[axis]) / scale[axis]);
  }
  return around_same_centre(image, extent, scale);
}

Geometry resized(const Geometry& image, const std::array<std::int64_t, 3>& extent) {
  Point scale{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    CINNABAR_CHECK(extent[axis] > 0, "resized", "extent of ", extent[axis], " voxels");
    scale[axis] = static_cast<double>(image.extent[axis]) / static_cast<double>(extent[axis]);
  }
  return around_same_centre(image, extent, scale);
}

Geometry shrunk(const Geometry& image, double factor) {
  CINNABAR_CHECK(factor > 0.0 && std::isfinite(factor), "shrunk", "factor of ", factor);
  std::array<std::int64_t, 3> extent{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    extent[axis] = voxels_to_cover(static_cast<double>(image.extent[axis]) / factor);
  }
  return around_same_centre(image, extent, {factor, factor, factor});
}

Geometry refined(const Geometry& image, std::int64_t factor) {
  if (factor == 1) return image;
  return resized(image, {factor * image.extent[0], factor * image.extent[1], factor * image.extent[2]});
}

Geometry cropped(const Geometry& image, const std::array<std::int64_t, 3>& first,
                 const std::array<std::int64_t, 3>& extent) {
  Geometry result = image;
  result.extent = extent;
  const Point origin = transform_point(
      image.voxel_to_world,
      {static_cast<double>(first[0]), static_cast<double>(first[1]), static_cast<double>(first[2])});
  for (std::size_t row = 0; row < 3; ++row) result.voxel_to_world[row * 4 + 3] = origin[row];
  return result;
}

std::string describe(const Geometry& geometry) {
  const Point spacing = geometry.spacing_mm();
  char text[160];
  std::snprintf(text, sizeof text, "%lld x %lld x %lld voxels of %.4g x %.4g x %.4g mm, ",
                static_cast<long long>(geometry.extent[0]), static_cast<long long>(geometry.extent[1]),
                static_cast<long long>(geometry.extent[2]), spacing[0], spacing[1], spacing[2]);
  return text + geometry.orientation();
}

}  // namespace cinnabar::registration
