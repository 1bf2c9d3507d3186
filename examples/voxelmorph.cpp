// Teaches a VoxelMorph network to undo smooth random deformations of a scan from images alone. The picture
// shows one it was not taught: the scan, deformed, brought back, the difference left and that before; the
// grid goes along by the network's map and comes back by its inverse. 400 steps are the default.
//   example_voxelmorph SCAN.nii.gz PICTURE.png [STEPS]
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "autograd/elementwise.hpp"
#include "autograd/gaussian_smooth.hpp"
#include "autograd/layout.hpp"
#include "autograd/random.hpp"
#include "autograd/reduce.hpp"
#include "autograd/warp.hpp"
#include "layers/field_warp.hpp"
#include "layers/optimizer.hpp"
#include "models/voxelmorph.hpp"
#include "registration/nifti.hpp"
#include "registration/slice_picture.hpp"

using namespace cinnabar;

int main(int count, char** words) try {
  if (count < 3) return std::fprintf(stderr, "usage: example_voxelmorph SCAN PICTURE [STEPS]\n"), 2;
  const int steps = count > 3 ? std::atoi(words[3]) : 400;
  const Variable scan(registration::read_image(words[1]).voxels);
  const Slice fifth{.step = 5};
  const Variable fixed = slice(gaussian_smooth(scan / amax(scan), {2, 2, 2}), {{}, {}, fifth, fifth, fifth});
  const Shape field = fixed.shape().with(1, 3), spatial{field[2], field[3], field[4]};
  const auto rms = [](const Variable& x) { return std::sqrt(mean(square(x)).value().item()); };
  const auto random_map = [&](std::uint64_t seed) {  // by two voxels, rms
    const Variable v = gaussian_smooth(Variable(random_normal(field, 0, 1, seed, 1)), {5, 5, 5});
    return integrate_velocity(v * (2.0 / rms(v)), 6);
  };
  Voxelmorph network({.features = 8, .levels = 4, .seed = 1});
  Adam adam(network.named_parameters(), {.learning_rate = 2e-3});
  for (int step = 0; step < steps; ++step) {
    const Variable moving = warp(fixed, random_map(100u + static_cast<unsigned>(step)), Boundary::border);
    adam.set_rate_factor(cosine_schedule(steps)(step));
    adam.clear_gradients();
    voxelmorph_loss(moving, fixed, network.velocity(moving, fixed), 6, VoxelmorphLoss{.smoothness = 0.5})
        .backward();
    adam.step();
  }
  const NoGrad quiet;
  const Variable moving = warp(fixed, random_map(1), Boundary::border);
  const Flow flow = velocity_flow(network.velocity(moving, fixed), spatial, 6);
  const Variable found = warp(moving, flow.psi, Boundary::border);
  std::printf("difference before %.4f after %.4f, least Jacobian %.3f\n", rms(moving - fixed),
              rms(found - fixed), smallest_jacobian(flow));
  const Variable grid(registration::grid_lines(13, 3)), there = registration::displaced(grid, flow.psi);
  registration::write_slices(words[2], {fixed, moving, found, abs(found - fixed), abs(moving - fixed)},
                             {grid, there, registration::displaced(there, flow.phi), {}, {}}, 5, 5);
} catch (const std::exception& error) {
  return std::fprintf(stderr, "example_voxelmorph: %s\n", error.what()), 1;
}
