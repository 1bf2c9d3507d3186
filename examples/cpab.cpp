// Undoes a deformation of a brain scan: the scan, or its middle slice, is warped by a random CPAB flow, then
// gradient descent on theta looks for the flow back, seeing the two pictures alone, blurred ones first.
//   example_cpab SCAN.nii.gz PICTURE.png [volume]
// The picture shows the scan, the warped scan, the recovered one and the difference that is left; below,
// where the warp takes the lines of a regular grid on the scan, where the one found takes them, and what both
// leave of them.

#include <cmath>
#include <cstdio>

#include "autograd/elementwise.hpp"
#include "autograd/gaussian_smooth.hpp"
#include "autograd/layout.hpp"
#include "autograd/losses.hpp"
#include "autograd/reduce.hpp"
#include "layers/cpab_transformer.hpp"
#include "layers/optimizer.hpp"
#include "registration/nifti.hpp"
#include "registration/slice_picture.hpp"

using namespace cinnabar;
/// The middle slice [1, 1, H, W] of a volume, or all of it at a third of the resolution.
Variable picture_of(const Variable& scan, bool whole) {
  const Shape& shape = scan.shape();
  if (!whole) return reshape(slice(scan, 2, shape[2] / 2, shape[2] / 2 + 1), {1, 1, shape[3], shape[4]});
  Variable coarse = gaussian_smooth(scan, {1.5, 1.5, 1.5});
  for (int axis = 2; axis < 5; ++axis) coarse = slice(coarse, axis, 0, shape[axis], 3);
  return coarse;
}

int main(int count, char** words) try {
  if (count < 3) return std::fprintf(stderr, "usage: example_cpab SCAN PICTURE [volume]\n"), 2;
  const Variable scan(registration::read_image(words[1]).voxels);
  const Variable target = picture_of(scan / amax(scan), count > 3);
  const CpabTransformer warp(count > 3 ? std::vector{3, 3, 3} : std::vector{5, 5});
  const CpabSpace& space = warp.space();
  const Variable truth(space.sample_prior(1, 0.3, 0.12, {.seed = 3}));
  const Variable moving = warp(target, truth).detach();
  constexpr int kSteps = 150;
  Variable theta(Tensor::zeros({1, space.dim()}), true);
  Adam adam({{"theta", theta}}, {.learning_rate = 0.1});
  for (int step = 0; step < kSteps; ++step) {
    adam.set_rate_factor(cosine_schedule(kSteps)(step));
    adam.clear_gradients();
    const double blur = 6.0 * (kSteps - step) / kSteps;
    mean(square(gaussian_smooth(warp(moving, theta) - target, {blur, blur, blur}))).backward();
    adam.step();
  }
  const NoGrad quiet;
  const Variable found = warp(moving, theta), rest = abs(found - target);
  const auto rms = [&](const Variable& x) { return std::sqrt(mse_loss(x, target).value().item()); };
  std::printf("difference before %.4f after %.4f\n", rms(moving), rms(found));
  const Variable grid(registration::grid_lines(13, space.dims())), there = cpab_flow(grid, -truth, space);
  const Variable guess = cpab_flow(grid, theta, space), back = cpab_flow(there, -theta, space);
  registration::write_slices(words[2], {target, moving, found, rest, target, moving, moving, found},
                             {{}, {}, {}, {}, grid, there, guess, back}, 4, 2);
} catch (const std::exception& error) {
  return std::fprintf(stderr, "example_cpab: %s\n", error.what()), 1;
}
