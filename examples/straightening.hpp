#pragma once

#include "autograd/layout.hpp"
#include "autograd/losses.hpp"
#include "models/slice_training.hpp"
#include "registration/brain_slices.hpp"
#include "registration/nifti.hpp"

// What the examples share that teach a network to straighten slices of a brain.

namespace cinnabar {

/// Every second slice [N, 1, 48, 48] of a skull-stripped scan, without the lowest and the highest ones.
inline Tensor middle_slices(const char* scan) {
  const Tensor all = registration::axial_slices(registration::read_image(scan)).images;
  return slice(Variable(all), 0, 16, all.shape(0) - 8, 2).value();
}

/// Shows the network slices that are warped anew in every step; what it returns should be the slices.
inline void teach_to_straighten(Layer& net, const Tensor& slices, const RandomWarp& warp,
                                std::int64_t steps) {
  Adam adam(net.named_parameters(), {.learning_rate = 2e-3});
  for (std::int64_t step = 0; step < steps; ++step) {
    const Variable warped(warp(slices, 1, static_cast<std::uint64_t>(step)));
    adam.set_rate_factor(cosine_schedule(steps)(step));
    adam.clear_gradients();
    mse_loss(net(warped), Variable(slices)).backward();
    adam.step();
  }
}

}  // namespace cinnabar
