// Teaches single layers of nine taps to move things about: beside a slice of a brain they see where each
// pixel should take its value from, a few pixels away. A convolution looks at the same nine pixels
// everywhere; a deformable one finds out that its taps should go where it is told.
//   example_deform_conv SCAN.nii.gz PICTURE.png [STEPS]
// The picture shows slices, what should become of them, and what either layer makes of them. The default of
// 300 steps takes about 10 s.

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "autograd/elementwise.hpp"
#include "autograd/gaussian_smooth.hpp"
#include "autograd/random.hpp"
#include "autograd/warp.hpp"
#include "examples/straightening.hpp"
#include "layers/deform_conv.hpp"
#include "registration/slice_picture.hpp"

using namespace cinnabar;

/// Smooth displacements [N, 3, 1, H, W] of some pixels along x and y.
Variable displacements(std::int64_t count, std::uint64_t stream) {
  const Variable noise(random_normal({count, 2, 1, 48, 48}, 0.0, 45.0, 7, stream));
  return pad(gaussian_smooth(noise, {6.0, 6.0, 0.0}), {{0, 0}, {0, 1}, {0, 0}, {0, 0}, {0, 0}});
}

int main(int count, char** words) try {
  if (count < 3) return std::fprintf(stderr, "usage: example_deform_conv SCAN PICTURE [STEPS]\n"), 2;
  const std::int64_t steps = count > 3 ? std::atoll(words[3]) : 300;
  const Variable slices = unsqueeze(Variable(middle_slices(words[1])), 2);
  const auto loss_of = [&](Layer& layer, std::uint64_t stream, std::vector<Variable>* pictures = nullptr) {
    const Variable u = displacements(slices.shape()[0], stream);
    const Variable moved = warp(slices, u, Boundary::zeros);
    const Variable made = layer(concat({slices, 0.25 * slice(u, 1, 0, 2)}, 1));
    if (pictures != nullptr) *pictures = {slices, moved, made};
    return mse_loss(made, moved);
  };
  Generator weights(1);
  Conv3dLayer plain(3, 1, conv_squares(3, 1), weights);
  DeformConvLayer deformable(3, 1, conv_squares(3, 1), weights, {.axes = 2, .masked = false});
  std::vector<Variable> by_plain, by_deformable;
  const auto teach = [&](Layer& layer, const char* name, std::vector<Variable>& pictures) {
    Adam adam(layer.named_parameters(), {.learning_rate = 2e-2});
    for (std::int64_t step = 0; step < steps; ++step) {
      adam.set_rate_factor(cosine_schedule(steps)(step));
      adam.clear_gradients();
      loss_of(layer, static_cast<std::uint64_t>(step)).backward();
      adam.step();
    }
    const NoGrad quiet;
    std::printf("%s %.4f ", name, std::sqrt(loss_of(layer, 1'000'000, &pictures).value().item()));
  };
  teach(plain, "difference plain", by_plain);
  teach(deformable, "deformable", by_deformable);
  std::printf("unmoved %.4f\n", std::sqrt(mse_loss(by_plain[0], by_plain[1]).value().item()));
  std::vector<Variable> pictures{by_plain[0], by_plain[1], by_plain[2], by_deformable[2]};
  for (Variable& picture : pictures) picture = reshape(slice(picture, 0, 4, 16, 4), {1, 1, 144, 48});
  registration::write_slices(words[2], pictures, std::vector<Variable>(pictures.size()), 4, 3);
} catch (const std::exception& error) {
  return std::fprintf(stderr, "example_deform_conv: %s\n", error.what()), 1;
}
