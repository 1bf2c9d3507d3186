// Shows what families of transformations do to a slice of a scan with a grid drawn over it.
//   example_transformations SCAN.nii.gz PICTURE.png FAMILY...
// FAMILY is affine, attention, homography, tps, cpab, displacement or velocity. The first panel is the slice;
// then there is one for each family, transformed by random parameters; where there is one family only and it
// has an inverse, the last panel is the result of that. Red dots: control points of the spline, each drawn at
// the place that its value is taken from and at the place where it comes to lie.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

#include "autograd/elementwise.hpp"
#include "autograd/grid_sample.hpp"
#include "autograd/layout.hpp"
#include "autograd/random.hpp"
#include "autograd/reduce.hpp"
#include "layers/cpab_warp.hpp"
#include "layers/spatial_transformer.hpp"
#include "layers/thin_plate_warp.hpp"
#include "registration/canvas.hpp"
#include "registration/nifti.hpp"
#include "registration/output_file.hpp"

using namespace cinnabar;

constexpr float kLines = 14.0f;  // of the grid, across the slice
constexpr double kFar = 10.05;   // between two lines

/// Draws panels side by side.
class Picture {
 public:
  Picture(const Variable& slice, std::int64_t panels)
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

  /// A dot at coordinates from -1 to 1.
  void dot(std::int64_t panel, double x, double y) {
    const auto column = std::llround(0.5 * (x + 1) * static_cast<double>(width_ - 1));
    const auto row = std::llround(0.5 * (1 - y) * static_cast<double>(height_ - 1));
    const std::int64_t first = panel * width_;
    for (std::int64_t i = column - 2; i <= column + 2; ++i) {
      if (i >= 0 && i < width_) canvas_.fill(first + i, row - 2, 1, 5, {0.95f, 0.2f, 0.15f});
    }
  }

  void write(const char* path) const { registration::write_bytes(path, canvas_.to_png()); }

 private:
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

/// Random parameters that deform visibly.
Variable parameters_of(const std::string& family, const GridGenerator& generator) {
  static const std::map<std::string, double> sizes{{"affine", 0.3},       {"attention", 0.4},
                                                   {"homography", 0.2},   {"tps", 0.14},
                                                   {"displacement", 0.1}, {"velocity", 0.12}};
  if (family == "cpab") {
    return Variable(dynamic_cast<const CpabWarp&>(generator).space().sample_prior(1, 0.3, 0.4, {.seed = 5}));
  }
  const double size = sizes.at(family);
  return Variable(random_uniform({1, generator.parameter_count()}, -size, size, 9, 2));
}

int main(int count, char** words) try {
  if (count < 4) return std::fprintf(stderr, "usage: example_transformations SCAN PICTURE FAMILY...\n"), 2;
  const Variable scan(registration::read_image(words[1]).voxels);
  const std::int64_t z = scan.shape()[2] / 2;
  const std::int64_t y = scan.shape()[3] / 12, x = scan.shape()[4] / 12;  // a narrower margin
  const Variable image = squeeze(
      slice(scan / amax(scan), {{}, {}, {z, z + 1}, {y, scan.shape()[3] - y}, {x, scan.shape()[4] - x}}), 2);
  const Shape spatial{image.shape()[2], image.shape()[3]};
  const GridOptions options{.control_points = 4, .boxes = 4, .lattice = 7};
  const auto first = make_grid_generator(words[3], spatial, options);
  const bool back = count == 4 && first->has_inverse();
  Picture picture(image, count - 2 + (back ? 1 : 0));
  picture.draw(0, first->grid(Variable(Tensor::zeros({1, first->parameter_count()}))).value());
  for (int i = 3; i < count; ++i) {
    const auto generator = make_grid_generator(words[i], spatial, options);
    const Variable p = parameters_of(words[i], *generator), grid = generator->grid(p);
    picture.draw(i - 2, grid.value());
    if (back) {
      const Variable inverse = generator->grid(generator->inverse(p));
      // What comes from beyond the second panel is as good as from far outside of the first.
      const Variable both = grid_sample(permute(grid, {0, 3, 1, 2}) + kFar, inverse, {.align_corners = true});
      picture.draw(2, permute(both - kFar, {0, 2, 3, 1}).value());
    }
    const auto* spline = dynamic_cast<const ThinPlateWarp*>(generator.get());
    if (spline == nullptr) continue;
    const std::vector<double> c = spline->control_points().to_vector<double>();
    const std::vector<double> v = p.value().to_vector<double>();
    for (std::size_t k = 0; k < c.size(); k += 2) {
      picture.dot(0, c[k] + v[k], c[k + 1] + v[k + 1]);
      picture.dot(i - 2, c[k], c[k + 1]);
    }
  }
  picture.write(words[2]);
  return 0;
} catch (const std::exception& error) {
  return std::fprintf(stderr, "example_transformations: %s\n", error.what()), 1;
}
