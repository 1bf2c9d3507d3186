#pragma once

// Pictures of a slice with the grid that a transformation makes of straight lines.

#include <algorithm>
#include <cmath>

#include "autograd/elementwise.hpp"
#include "autograd/grid_sample.hpp"
#include "autograd/layout.hpp"
#include "autograd/reduce.hpp"
#include "registration/canvas.hpp"
#include "registration/nifti.hpp"
#include "registration/output_file.hpp"

namespace cinnabar {

/// The middle slice of a scan [1, 1, H, W], 1 at its brightest, with a narrower margin.
inline Variable middle_slice(const char* path) {
  const Variable scan(registration::read_image(path).voxels);
  const Shape& shape = scan.shape();
  const std::int64_t z = shape[2] / 2, y = shape[3] / 12, x = shape[4] / 12;
  return squeeze(slice(scan / amax(scan), {{}, {}, {z, z + 1}, {y, shape[3] - y}, {x, shape[4] - x}}), 2);
}

/// Draws panels side by side.
class GridPicture {
 public:
  GridPicture(const Variable& slice, std::int64_t panels)
      : slice_(slice),
        height_(slice.shape()[2]),
        width_(slice.shape()[3]),
        canvas_(width_ * panels, height_, {0, 0, 0}) {}

  /// The slice at the places of a grid [1, H, W, 2] and the lines that the grid makes of straight ones.
  void draw(std::int64_t panel, const Tensor& grid) {
    const Variable pixels = grid_sample(slice_, Variable(grid), {.align_corners = true});
    for (std::int64_t p = 0; p < height_ * width_; ++p) {
      const float grey = std::clamp(pixels.value().data<float>()[p], 0.0f, 1.0f);
      const std::int64_t x = panel * width_ + p % width_, y = height_ - 1 - p / width_;
      canvas_.set(x, y, {grey, grey, grey});
      canvas_.blend(x, y, {1.0f, 0.75f, 0.2f}, 0.75f * ink(grid.data<float>(), p));
    }
  }

  /// Dots at places [K, 2], x and y from -1 to 1.
  void dots(std::int64_t panel, const Tensor& places) {
    const std::vector<float> place = places.to_vector<float>();
    for (std::size_t k = 0; k < place.size(); k += 2) {
      const std::int64_t column = std::llround(0.5f * (place[k] + 1) * static_cast<float>(width_ - 1));
      const std::int64_t row = std::llround(0.5f * (1 - place[k + 1]) * static_cast<float>(height_ - 1));
      for (std::int64_t x = std::max<std::int64_t>(0, column - 2);
           x < std::min<std::int64_t>(width_, column + 3); ++x) {
        canvas_.fill(panel * width_ + x, row - 2, 1, 5, {0.95f, 0.2f, 0.15f});
      }
    }
  }

  void write(const char* path) const { registration::write_bytes(path, canvas_.to_png()); }

 private:
  static constexpr float kLines = 14.0f;  // across the slice

  /// How much of a grid line lies on a pixel, from 0 to 1.
  float ink(const float* grid, std::int64_t p) const {
    float most = 0.0f;
    const std::int64_t right = p % width_ + 1 < width_ ? 1 : -1,
                       up = p / width_ + 1 < height_ ? width_ : -width_;
    for (const std::int64_t axis : {0, 1}) {
      const auto at = [&](std::int64_t q) { return 0.5f * kLines * (grid[2 * q + axis] + 1.0f); };
      const float slope = std::hypot(at(p + right) - at(p), at(p + up) - at(p));
      most = std::max(most, 1.1f - std::abs(at(p) - std::round(at(p))) / (slope + 1e-6f));
    }
    return std::clamp(most, 0.0f, 1.0f);
  }

  Variable slice_;
  std::int64_t height_, width_;
  registration::Canvas canvas_;
};

}  // namespace cinnabar
