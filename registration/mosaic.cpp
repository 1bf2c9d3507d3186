#include "registration/mosaic.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>

#include "registration/canvas.hpp"
#include "registration/metrics.hpp"
#include "registration/output_file.hpp"
#include "registration/sampling.hpp"
#include "registration/slice_view.hpp"

namespace cinnabar::registration {

namespace {

constexpr Colour kBackground{0.07f, 0.075f, 0.09f};
constexpr Colour kPanel{0.0f, 0.0f, 0.0f};
constexpr Colour kText{0.86f, 0.88f, 0.91f};
constexpr Colour kFaintText{0.50f, 0.54f, 0.60f};
constexpr Colour kGridLine{0.98f, 0.80f, 0.33f};
constexpr Colour kFolded{1.0f, 0.15f, 0.95f};
constexpr std::int64_t kLongestPixels = 260;
constexpr std::int64_t kGap = 8;
constexpr std::int64_t kMargin = 20;
constexpr std::int64_t kHeader = 34;
constexpr std::int64_t kFooter = 62;
constexpr std::array<const char*, 7> kTitles{"FIXED",       "MOVING (AFFINE)", "WARPED",      "DIFF. BEFORE",
                                             "DIFF. AFTER", "DEFORMED GRID",   "LOG JACOBIAN"};

/// Largest |log J| of the legend: covers 99 % of the voxels, rounded up to a round number.
double jacobian_range(const Tensor& jacobian) {
  std::vector<float> logs;
  for (const float value : jacobian.to_vector<float>()) {
    if (value > 0.0f) logs.push_back(std::abs(std::log(value)));
  }
  double range = 0.0;
  if (!logs.empty()) {
    const auto rank = static_cast<std::ptrdiff_t>(0.99 * static_cast<double>(logs.size() - 1));
    std::nth_element(logs.begin(), logs.begin() + rank, logs.end());
    range = logs[static_cast<std::size_t>(rank)];
  }
  for (const double round : {0.1, 0.2, 0.5, 1.0, 1.5, 2.0}) {
    if (range <= round) return round;
  }
  return 3.0;
}

/// Distance between the lines of the deformed grid: about 22 along the longest side, a round number of mm.
double grid_spacing_mm(const SliceView& view) {
  const double wanted = view.mm_per_pixel * static_cast<double>(kLongestPixels) / 22.0;
  double best = 1.0;
  for (const double round : {0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 5.0, 8.0, 10.0, 20.0, 50.0}) {
    if (std::abs(std::log(round / wanted)) < std::abs(std::log(best / wanted))) best = round;
  }
  return best;
}

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

/// One row of the mosaic: everything sampled on one plane.
class Row {
 public:
  Row(const MosaicInput& input, const Tensor& jacobian, const SliceView& view) : view_(view) {
    const IntensityWindow fixed_window = intensity_window(input.fixed);
    const IntensityWindow moving_window = intensity_window(input.moving);
    fixed_ = windowed(input.fixed, fixed_window);
    moving_ = windowed(input.moving, moving_window);
    warped_ = windowed(input.warped, moving_window);
    jacobian_ = sample_slice(jacobian, 0, input.field.geometry, view, 1.0f);
    for (std::size_t c = 0; c < 3; ++c) {
      vectors_[c] =
          sample_slice(input.field.vectors, static_cast<std::int64_t>(c), input.field.geometry, view, 0.0f);
    }
  }

  void draw_panel(Canvas& canvas, std::size_t column, std::int64_t left, std::int64_t top,
                  double range) const {
    std::vector<float> lines;
    if (column == 5) lines = grid_lines();
    for (std::int64_t y = 0; y < view_.height; ++y) {
      for (std::int64_t x = 0; x < view_.width; ++x) {
        const auto i = static_cast<std::size_t>(y * view_.width + x);
        canvas.set(left + x, top + y, colour(column, i, range));
        if (column == 5) canvas.blend(left + x, top + y, kGridLine, lines[i]);
      }
    }
  }

 private:
  std::vector<float> windowed(const Image& image, const IntensityWindow& window) const {
    std::vector<float> values = sample_slice(image.voxels, 0, image.geometry, view_, window.black);
    for (float& value : values) value = std::clamp(window(value), 0.0f, 1.0f);
    return values;
  }

  Colour colour(std::size_t column, std::size_t i, double range) const {
    const auto grey = [](float value) { return Colour{value, value, value}; };
    switch (column) {
      case 0:
        return grey(fixed_[i]);
      case 1:
        return grey(moving_[i]);
      case 2:
        return grey(warped_[i]);
      case 3:
        return diverging_colour(moving_[i] - fixed_[i]);
      case 4:
        return diverging_colour(warped_[i] - fixed_[i]);
      case 5:
        return grey(0.55f * fixed_[i]);
      default:
        if (!(jacobian_[i] > 0.0f)) return kFolded;
        return diverging_colour(std::log(jacobian_[i]) / static_cast<float>(range));
    }
  }

  /// Opacity of the lines at each pixel: where a coordinate of the point in the moving space that the pixel
  /// maps to is a multiple of the spacing. Dividing by the coordinate's gradient keeps lines evenly thin.
  std::vector<float> grid_lines() const {
    const std::int64_t width = view_.width, height = view_.height;
    const double spacing = grid_spacing_mm(view_);
    std::vector<float> opacity(static_cast<std::size_t>(width * height), 0.0f);
    for (const Point& axis : {view_.across, view_.up}) {
      std::vector<double> phase(opacity.size());
      for (std::int64_t i = 0; i < width * height; ++i) {
        const Point world = transform_point(view_.pixel_to_world, voxel_position({width, height, 1}, i));
        for (std::size_t c = 0; c < 3; ++c) {
          phase[static_cast<std::size_t>(i)] +=
              axis[c] * (world[c] + vectors_[c][static_cast<std::size_t>(i)]) / spacing;
        }
      }
      const auto at = [&](std::int64_t x, std::int64_t y) {
        x = std::clamp<std::int64_t>(x, 0, width - 1), y = std::clamp<std::int64_t>(y, 0, height - 1);
        return phase[static_cast<std::size_t>(y * width + x)];
      };
      for (std::int64_t y = 0; y < height; ++y) {
        for (std::int64_t x = 0; x < width; ++x) {
          const double here = at(x, y);
          const double gradient =
              0.5 * std::hypot(at(x + 1, y) - at(x - 1, y), at(x, y + 1) - at(x, y - 1)) + 1e-9;
          const double pixels = std::abs(here - std::round(here)) / gradient;
          const auto line = static_cast<float>(std::clamp(1.15 - pixels, 0.0, 1.0));
          float& target = opacity[static_cast<std::size_t>(y * width + x)];
          target = std::max(target, 0.9f * line);
        }
      }
    }
    return opacity;
  }

  const SliceView& view_;
  std::vector<float> fixed_, moving_, warped_, jacobian_;
  std::array<std::vector<float>, 3> vectors_;
};

void centred_text(Canvas& canvas, std::int64_t centre, std::int64_t top, const std::string& words,
                  const Colour& colour) {
  canvas.text(centre - Canvas::text_width(words) / 2, top, words, colour);
}

/// A colour bar with its two ends and 0 written below.
void draw_legend(Canvas& canvas, std::int64_t left, std::int64_t top, std::int64_t width,
                 const std::string& end) {
  for (std::int64_t x = 0; x < width; ++x) {
    const float value = 2.0f * static_cast<float>(x) / static_cast<float>(width - 1) - 1.0f;
    canvas.fill(left + x, top, 1, 10, diverging_colour(value));
  }
  canvas.text(left, top + 18, "-" + end, kFaintText);
  centred_text(canvas, left + width / 2, top + 18, "0", kFaintText);
  canvas.text(left + width - Canvas::text_width("+" + end), top + 18, "+" + end, kFaintText);
}

}  // namespace

std::vector<std::byte> draw_mosaic(const MosaicInput& input) {
  const std::vector<SliceView> views = three_views(input.fixed, kLongestPixels);
  const Tensor jacobian = jacobian_determinant(input.field);
  const double range = jacobian_range(jacobian);
  // At least as wide as the longest title.
  std::int64_t cell = Canvas::text_width("MOVING (AFFINE)") + 16;
  std::int64_t height = kHeader + kFooter + kMargin;
  for (const SliceView& view : views) {
    cell = std::max(cell, view.width);
    height += view.height + kGap;
  }
  const auto columns = static_cast<std::int64_t>(kTitles.size());
  Canvas canvas(2 * kMargin + columns * cell + (columns - 1) * kGap, height, kBackground);
  const auto left_of = [&](std::int64_t column) { return kMargin + column * (cell + kGap); };
  for (std::int64_t column = 0; column < columns; ++column) {
    centred_text(canvas, left_of(column) + cell / 2, kMargin - 4, kTitles[static_cast<std::size_t>(column)],
                 kText);
  }
  std::int64_t top = kMargin + kHeader - 14;
  for (const SliceView& view : views) {
    const Row row(input, jacobian, view);
    for (std::int64_t column = 0; column < columns; ++column) {
      const std::int64_t left = left_of(column);
      canvas.fill(left, top, cell, view.height,
                  column == 3 || column == 4 || column == 6 ? kBackground : kPanel);
      row.draw_panel(canvas, static_cast<std::size_t>(column), left + (cell - view.width) / 2, top, range);
    }
    const std::int64_t middle = top + view.height / 2 - 7;
    canvas.text(left_of(0) + 4, top + 4, view.name, kFaintText);
    canvas.text(left_of(0) + 4, middle, std::string(1, view.left), kText);
    canvas.text(left_of(0) + cell - 14, middle, std::string(1, view.right), kText);
    top += view.height + kGap;
  }
  top += 6;
  const std::int64_t bar = std::min<std::int64_t>(cell - 16, 180);
  draw_legend(canvas, left_of(4) - kGap / 2 - bar / 2, top, bar, "100%");
  draw_legend(canvas, left_of(6) + (cell - bar) / 2, top, bar, number(range));
  centred_text(canvas, left_of(5) + cell / 2, top + 18, "EVERY " + number(grid_spacing_mm(views[0])) + " MM",
               kFaintText);
  const double bar_mm = 50.0;
  const auto bar_pixels = static_cast<std::int64_t>(bar_mm / views[0].mm_per_pixel);
  if (bar_pixels > 2 && bar_pixels < cell) {
    canvas.fill(left_of(0), top + 4, bar_pixels, 3, kFaintText);
    canvas.text(left_of(0), top + 18, number(bar_mm) + " MM", kFaintText);
  }
  const std::vector<float> determinants = jacobian.to_vector<float>();
  if (std::any_of(determinants.begin(), determinants.end(), [](float j) { return !(j > 0.0f); })) {
    canvas.fill(left_of(6) + (cell - bar) / 2, top + 38, 10, 10, kFolded);
    canvas.text(left_of(6) + (cell - bar) / 2 + 16, top + 37, "FOLDED", kFaintText);
  }
  return canvas.to_png();
}

}  // namespace cinnabar::registration
