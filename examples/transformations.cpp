// Shows what families of transformations do to a slice of a scan with a grid drawn over it.
//   example_transformations SCAN.nii.gz PICTURE.png FAMILY...
// FAMILY is affine, attention, homography, tps, cpab, displacement or velocity. The first panel is the slice;
// then there is one for each family, transformed by random parameters; one family alone is followed by its
// inverse. Red dots: control points, where their value is taken from and where they come to lie.

#include <cstdio>

#include "autograd/random.hpp"
#include "examples/grid_picture.hpp"
#include "layers/cpab_warp.hpp"
#include "layers/spatial_transformer.hpp"
#include "layers/thin_plate_warp.hpp"

using namespace cinnabar;

constexpr double kFar = 10.05;  // between two lines

/// Random parameters that deform visibly.
Variable parameters_of(const std::string& family, const GridGenerator& generator) {
  if (const auto* cpab = dynamic_cast<const CpabWarp*>(&generator)) {
    return Variable(cpab->space().sample_prior(1, 0.3, 0.4, {.seed = 5}));
  }
  const double matrix = family == "attention" ? 0.4 : family == "affine" ? 0.3 : 0.2;
  const double size = generator.parameter_count() <= 8 ? matrix : 0.13;
  return Variable(random_uniform({1, generator.parameter_count()}, -size, size, 9, 2));
}

int main(int count, char** words) try {
  if (count < 4) return std::fprintf(stderr, "usage: example_transformations SCAN PICTURE FAMILY...\n"), 2;
  const Variable image = middle_slice(words[1]);
  const Shape spatial{image.shape()[2], image.shape()[3]};
  const GridOptions options{.control_points = 4, .boxes = 4, .lattice = 7};
  const auto first = make_grid_generator(words[3], spatial, options);
  const bool back = count == 4 && first->has_inverse();
  GridPicture picture(image, count - 2 + (back ? 1 : 0));
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
    if (const auto* spline = dynamic_cast<const ThinPlateWarp*>(generator.get())) {
      const Variable controls(spline->control_points().to(DType::f32));
      picture.dots(0, (controls + reshape(p, controls.shape())).value());
      picture.dots(i - 2, controls.value());
    }
  }
  picture.write(words[2]);
  return 0;
} catch (const std::exception& error) {
  return std::fprintf(stderr, "example_transformations: %s\n", error.what()), 1;
}
