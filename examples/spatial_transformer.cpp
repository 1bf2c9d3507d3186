// Teaches a spatial transformer to straighten slices of a brain that were rotated, scaled and shifted at
// random. It is shown a warped slice and looks for the transformation that brings it back to the scan's.
//   example_spatial_transformer SCAN.nii.gz PICTURE.png [STEPS]
// Rows of the picture: slices as they come in, as they go out, and as they should be. The default of 400
// steps takes about 5 s.

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "examples/straightening.hpp"
#include "registration/slice_picture.hpp"

using namespace cinnabar;

/// Images [N, 1, H, W] side by side, [1, 1, H, N W].
Variable row_of(const Variable& images) {
  const Shape& shape = images.shape();
  return reshape(permute(images, {1, 2, 0, 3}), {1, 1, shape[2], shape[0] * shape[3]});
}

int main(int count, char** words) try {
  if (count < 3) return std::fprintf(stderr, "usage: example_spatial_transformer SCAN PICTURE [STEPS]\n"), 2;
  const std::int64_t steps = count > 3 ? std::atoll(words[3]) : 400;
  const Tensor slices = middle_slices(words[1]);
  const RandomWarp warp("affine", {48, 48});

  Generator weights(1);
  SpatialTransformer net(1, make_grid_generator("affine", {48, 48}), LocalisationOptions{}, weights);
  teach_to_straighten(net, slices, warp, steps);

  const NoGrad quiet;
  const Variable seen(warp(slices, 2, 0)), straight = net(seen);
  const auto rms = [&](const Variable& x) { return std::sqrt(mse_loss(x, Variable(slices)).value().item()); };
  std::printf("difference before %.4f after %.4f\n", rms(seen), rms(straight));
  const auto some = [](const Variable& x) { return row_of(slice(x, 0, 0, 18, 2)); };
  const Variable rows = concat({some(Variable(slices)), some(straight), some(seen)}, 2);
  registration::write_slices(words[2], {rows.value()});
  return 0;
} catch (const std::exception& error) {
  return std::fprintf(stderr, "example_spatial_transformer: %s\n", error.what()), 1;
}
