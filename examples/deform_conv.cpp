// Teaches single layers of nine taps to move things about: beside a slice of a brain they see where each
// pixel should take its value from, a few pixels away. A convolution looks at the same nine pixels
// everywhere; a deformable one finds out that its taps should go where it is told.
//   example_deform_conv SCAN.nii.gz PICTURE.png [STEPS]
// The picture shows slices, what should become of them, and what either layer makes of them. The default of
// 150 steps takes about 10 s on one core.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "autograd/elementwise.hpp"
#include "autograd/gaussian_smooth.hpp"
#include "autograd/random.hpp"
#include "autograd/warp.hpp"
#include "examples/straightening.hpp"
#include "layers/deform_conv.hpp"
#include "registration/slice_picture.hpp"

using namespace cinnabar;

int main(int count, char** words) try {
  if (count < 3) return std::fprintf(stderr, "usage: example_deform_conv SCAN PICTURE [STEPS]\n"), 2;
  const std::int64_t steps = count > 3 ? std::atoll(words[3]) : 150;
  const Variable slices = unsqueeze(Variable(middle_slices(words[1])), 2);
  const auto example = [&](std::uint64_t stream) {  // what a layer sees, and what it should make of it
    const Variable noise(random_normal({slices.shape()[0], 2, 1, 48, 48}, 0.0, 45.0, 7, stream));
    const Variable u = gaussian_smooth(noise, {6.0, 6.0, 0.0});  // pixels along x and y
    const Variable along_z(Tensor::zeros(slices.shape()));
    return std::pair(concat({slices, 0.25 * u}, 1), warp(slices, concat({u, along_z}, 1), Boundary::zeros));
  };
  Generator weights(1);
  Conv3dLayer plain(3, 1, conv_squares(3, 1), weights);
  DeformConvLayer deformable(3, 1, conv_squares(3, 1), weights, {.axes = 2, .masked = false});
  const auto tested = example(1'000'000);
  const auto rms = [&](const Variable& x) { return std::sqrt(mse_loss(x, tested.second).value().item()); };
  std::vector<Variable> pictures{slices, tested.second};
  std::printf("difference unmoved %.4f", rms(slices));
  for (Layer* layer : std::initializer_list<Layer*>{&plain, &deformable}) {
    Adam adam(layer->named_parameters(), {.learning_rate = 2e-2});
    for (std::int64_t step = 0; step < steps; ++step) {
      const auto [seen, moved] = example(static_cast<std::uint64_t>(step));
      adam.set_rate_factor(cosine_schedule(steps)(step));
      adam.clear_gradients();
      mse_loss((*layer)(seen), moved).backward();
      adam.step();
    }
    pictures.push_back((*layer)(tested.first).detach());
    std::printf(" %s %.4f", layer == &plain ? "plain" : "deformable", rms(pictures.back()));
  }
  std::printf("\n");
  for (Variable& picture : pictures) picture = reshape(slice(picture, 0, 4, 16, 4), {1, 1, 144, 48});
  registration::write_slices(words[2], pictures, std::vector<Variable>(pictures.size()), 4, 3);
} catch (const std::exception& error) {
  return std::fprintf(stderr, "example_deform_conv: %s\n", error.what()), 1;
}
