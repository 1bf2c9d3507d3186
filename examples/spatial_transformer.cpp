// Teaches a spatial transformer to straighten slices of a brain that were rotated, scaled and shifted at
// random. It is shown a warped slice and looks for the transformation that brings it back to the scan's.
//   example_spatial_transformer SCAN.nii.gz PICTURE.png [STEPS]
// Rows of the picture: slices as they come in, as they go out, and as they should be. The default of 400
// steps takes about 5 s.

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "autograd/elementwise.hpp"
#include "autograd/layout.hpp"
#include "autograd/losses.hpp"
#include "models/slice_training.hpp"
#include "registration/brain_slices.hpp"
#include "registration/nifti.hpp"
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
  const Tensor all = registration::axial_slices(registration::read_image(words[1])).images;
  const Tensor slices = slice(Variable(all), 0, 16, all.shape(0) - 8, 2).value();
  const RandomWarp warp("affine", {48, 48});

  Generator weights(1);
  SpatialTransformer net(1, make_grid_generator("affine", {48, 48}), LocalisationOptions{}, weights);
  Adam adam(net.named_parameters(), {.learning_rate = 2e-3});
  for (std::int64_t step = 0; step < steps; ++step) {
    const Tensor warped = warp(slices, 1, static_cast<std::uint64_t>(step));
    adam.set_rate_factor(cosine_schedule(steps)(step));
    adam.clear_gradients();
    mse_loss(net(Variable(warped)), Variable(slices)).backward();
    adam.step();
  }

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
