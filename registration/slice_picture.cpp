#include "registration/slice_picture.hpp"

#include <algorithm>
#include <cmath>

#include "autograd/elementwise.hpp"
#include "autograd/grid_sample.hpp"
#include "autograd/layout.hpp"
#include "registration/canvas.hpp"
#include "registration/output_file.hpp"

namespace cinnabar::registration {

namespace {

constexpr const char* kOp = "write_slices";
constexpr std::int64_t kLinePoints = 257;
constexpr Colour kLineColour{1.0f, 0.62f, 0.1f};

/// One picture's place on the canvas.
struct Panel {
  std::int64_t left;
  std::int64_t top;
  std::int64_t width;  ///< in voxels
  std::int64_t height;
  std::int64_t scale;

  void draw(const Tensor& image, Canvas& canvas) const {
    const Tensor here = image.to(Device::cpu());
    const std::int64_t middle = image.rank() == 5 ? image.shape(2) / 2 * height * width : 0;
    for (std::int64_t p = 0; p < width * height; ++p) {
      const float grey = std::clamp(here.data<float>()[middle + p], 0.0f, 1.0f);
      canvas.fill(left + p % width * scale, top + (height - 1 - p / width) * scale, scale, scale,
                  {grey, grey, grey});
    }
  }

  /// Lines 1.3 pixels wide with smooth edges.
  void draw_lines(const Tensor& lines, Canvas& canvas) const {
    const Tensor here = lines.to(DType::f64).to(Device::cpu());
    const std::int64_t d = here.shape(-1), count = here.numel() / d;
    CINNABAR_CHECK(d >= 2 && count % kLinePoints == 0, kOp, "needs the points of grid_lines, got ", lines);
    std::vector<float> cover(static_cast<std::size_t>(width * height * scale * scale), 0.0f);
    const auto at = [&](std::int64_t point, std::int64_t axis) {
      const double position =
          here.data<double>()[point * d + axis] * static_cast<double>(axis == 0 ? width - 1 : height - 1);
      const double voxel = axis == 0 ? position : static_cast<double>(height - 1) - position;
      return (voxel + 0.5) * static_cast<double>(scale) - 0.5;
    };
    for (std::int64_t point = 0; point + 1 < count; ++point) {
      if ((point + 1) % kLinePoints != 0)
        cover_segment(at(point, 0), at(point, 1), at(point + 1, 0), at(point + 1, 1), cover);
    }
    for (std::int64_t p = 0; p < width * height * scale * scale; ++p) {
      canvas.blend(left + p % (width * scale), top + p / (width * scale), kLineColour,
                   0.85f * cover[static_cast<std::size_t>(p)]);
    }
  }

 private:
  void cover_segment(double x0, double y0, double x1, double y1, std::vector<float>& cover) const {
    const std::int64_t columns = width * scale, rows = height * scale;
    const double length = std::max((x1 - x0) * (x1 - x0) + (y1 - y0) * (y1 - y0), 1e-12);
    const auto first = [](double a, double b) {
      return std::max<std::int64_t>(0, std::llround(std::min(a, b)) - 2);
    };
    const auto last = [](double a, double b, std::int64_t size) {
      return std::min(size - 1, static_cast<std::int64_t>(std::llround(std::max(a, b))) + 2);
    };
    for (std::int64_t y = first(y0, y1); y <= last(y0, y1, rows); ++y) {
      for (std::int64_t x = first(x0, x1); x <= last(x0, x1, columns); ++x) {
        const double dx = static_cast<double>(x) - x0, dy = static_cast<double>(y) - y0;
        const double along = std::clamp((dx * (x1 - x0) + dy * (y1 - y0)) / length, 0.0, 1.0);
        const double away = std::hypot(dx - along * (x1 - x0), dy - along * (y1 - y0));
        float& covered = cover[static_cast<std::size_t>(y * columns + x)];
        covered = std::max(covered, static_cast<float>(std::clamp(1.15 - away, 0.0, 1.0)));
      }
    }
  }
};

}  // namespace

void write_slices(const std::filesystem::path& path, const std::vector<Tensor>& images) {
  std::vector<Variable> constants;
  for (const Tensor& image : images) constants.emplace_back(image);
  write_slices(path, constants, std::vector<Variable>(images.size()),
               static_cast<std::int64_t>(images.size()), 1);
}

void write_slices(const std::filesystem::path& path, const std::vector<Variable>& images,
                  const std::vector<Variable>& lines, std::int64_t columns, std::int64_t scale) {
  CINNABAR_CHECK(!images.empty() && lines.size() == images.size() && columns >= 1 && scale >= 1, kOp,
                 "needs an image, and as many lines as images, got ", images.size(), " and ", lines.size());
  const Shape& shape = images.front().shape();
  CINNABAR_CHECK((shape.rank() == 4 || shape.rank() == 5) && shape[0] == 1 && shape[1] == 1, kOp,
                 "images must be [1, 1, H, W] or [1, 1, D, H, W], got ", shape);
  const auto count = static_cast<std::int64_t>(images.size());
  const std::int64_t width = shape[-1], height = shape[-2];
  Canvas canvas(columns * width * scale, (count + columns - 1) / columns * height * scale, {0, 0, 0});
  for (std::int64_t k = 0; k < count; ++k) {
    const Tensor& image = images[static_cast<std::size_t>(k)].value();
    const Variable& over = lines[static_cast<std::size_t>(k)];
    require_same_shape(kOp, images.front().value(), image);
    const Panel panel{k % columns * width * scale, k / columns * height * scale, width, height, scale};
    panel.draw(image, canvas);
    if (over.defined()) panel.draw_lines(over.value(), canvas);
  }
  write_bytes(path, canvas.to_png());
}

Tensor grid_lines(std::int64_t count, int dims) {
  CINNABAR_CHECK(count >= 2 && (dims == 2 || dims == 3), "grid_lines",
                 "needs 2 lines or more in 2-D or 3-D, got ", count, " in ", dims, "-D");
  std::vector<float> points;
  for (std::int64_t line = 0; line < 2 * count; ++line) {
    const float across = static_cast<float>(line % count) / static_cast<float>(count - 1);
    for (std::int64_t k = 0; k < kLinePoints; ++k) {
      const float along = static_cast<float>(k) / static_cast<float>(kLinePoints - 1);
      points.push_back(line < count ? along : across);
      points.push_back(line < count ? across : along);
      if (dims == 3) points.push_back(0.5f);
    }
  }
  return Tensor::from(points, {2 * count * kLinePoints, dims});
}

Variable displaced(const Variable& points, const Variable& u) {
  const Shape& n = u.shape();
  const Variable places = reshape(scale(points, 2.0) - 1.0, {1, -1, 1, 1, 3});
  const Variable voxels = transpose(reshape(grid_sample(u, places, {.align_corners = true}), {3, -1}), 0, 1);
  const Variable last(Tensor::from<std::int64_t>({n[4] - 1, n[3] - 1, n[2] - 1}, {3}).to(DType::f32));
  return points + voxels / last;
}

}  // namespace cinnabar::registration
