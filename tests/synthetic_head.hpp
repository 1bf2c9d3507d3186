#pragma once

#include <cmath>

#include "registration/image.hpp"

namespace cinnabar::testing {

/// A "head" in world space: an ellipsoid with two inner bodies, moved by `shift_mm` and widened by `growth`.
inline registration::Image head(const registration::Geometry& grid, double shift_mm, double growth) {
  using namespace registration;
  Image image{Tensor::empty(grid.shape()), grid, {}, VoxelType::f32};
  const auto soft = [](double r) { return 1.0 / (1.0 + std::exp(4.0 * (r - 1.0))); };
  float* value = image.voxels.data<float>();
  for (std::int64_t z = 0; z < grid.extent[2]; ++z) {
    for (std::int64_t y = 0; y < grid.extent[1]; ++y) {
      for (std::int64_t x = 0; x < grid.extent[0]; ++x) {
        const Point p = transform_point(
            grid.voxel_to_world, {static_cast<double>(x), static_cast<double>(y), static_cast<double>(z)});
        const double a = p[0] - shift_mm, b = p[1] + 0.5 * shift_mm, c = p[2];
        const double outer = std::sqrt(a * a / 900 + b * b / 1300 + c * c / 800);
        const double inner = std::hypot(a - 8, b - 6, c) / (9 * growth);
        const double other = std::hypot(a + 9, b + 8, c - 4) / 7;
        const double bright = 60 * soft(outer) + 40 * soft(inner) - 30 * soft(other);
        *value++ = static_cast<float>(bright < 0.5 ? 0.0 : bright);
      }
    }
  }
  return image;
}

}  // namespace cinnabar::testing
