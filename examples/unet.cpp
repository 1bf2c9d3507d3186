// Teaches a U-Net to find the brain on axial slices of a head. Every third slice is held out: the Dice
// overlap with the mask there says how well it does, before and after.
//   example_unet HEAD.nii.gz BRAIN.nii.gz PICTURE.png [STEPS]
// BRAIN is 0 outside of the brain: for Debian's mricron-data ch2.nii.gz and ch2bet.nii.gz. The picture shows
// held-out slices, where the network sees brain, and where it is. The default of 80 steps takes about 15 s.

#include <cstdio>
#include <cstdlib>

#include "autograd/elementwise.hpp"
#include "autograd/layout.hpp"
#include "autograd/losses.hpp"
#include "autograd/reduce.hpp"
#include "layers/optimizer.hpp"
#include "models/unet.hpp"
#include "registration/nifti.hpp"
#include "registration/slice_picture.hpp"

using namespace cinnabar;

/// Slices [N, 1, 1, H, W], every eighth one from the given one on; every fourth voxel along x and y.
Variable slices_from(const Variable& volume, std::int64_t first) {
  const Variable some = slice(volume, {{}, {}, {.start = first, .step = 8}, {.step = 4}, {.step = 4}});
  return permute(some, {2, 0, 1, 3, 4});
}

/// Some slices side by side.
Variable row_of(const Variable& slices) {
  const Variable some = slice(slices, 0, 3, 21, 3);
  const Shape& shape = some.shape();
  return reshape(permute(some, {1, 2, 3, 0, 4}), {1, 1, shape[3], shape[0] * shape[4]});
}

int main(int count, char** words) try {
  if (count < 4) return std::fprintf(stderr, "usage: example_unet HEAD BRAIN PICTURE [STEPS]\n"), 2;
  const std::int64_t steps = count > 4 ? std::atoll(words[4]) : 80;
  const Variable voxels(registration::read_image(words[1]).voxels), head = voxels / amax(voxels);
  const Variable labels(registration::read_image(words[2]).voxels), zero(Tensor::zeros({}));
  const Variable brain = greater(labels, zero);
  const Variable taught = slices_from(head, 0), taught_mask = slices_from(brain, 0);
  const Variable held_out = slices_from(head, 4), mask = slices_from(brain, 4);
  Unet net({.encoder = {8, 16, 32, 32}, .axes = 2, .seed = 1});
  Adam adam(net.named_parameters(), {.learning_rate = 1e-2});
  const auto found = [&] { return greater(net(held_out), zero).detach(); };
  const auto all_of = [](const Variable& x) { return reshape(x, {1, 1, -1}); };
  const auto dice = [&] { return 1.0 - dice_loss(all_of(found()), all_of(mask)).value().item(); };
  std::printf("Dice before %.4f", dice());
  for (std::int64_t step = 0; step < steps; ++step) {
    adam.set_rate_factor(cosine_schedule(steps)(step));
    adam.clear_gradients();
    const Variable logits = net(taught);
    mean(softplus(logits) - logits * taught_mask).backward();  // cross entropy
    adam.step();
  }
  std::printf(" after %.4f\n", dice());
  registration::write_slices(words[3], {row_of(held_out), row_of(found()), row_of(mask)}, {{}, {}, {}}, 1, 3);
} catch (const std::exception& error) {
  return std::fprintf(stderr, "example_unet: %s\n", error.what()), 1;
}
