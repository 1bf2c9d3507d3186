// Aligns signals that nobody has aligned before: a line of a brain scan is warped by many random CPAB flows,
// then each copy's theta descends towards the mean of all, while small thetas are preferred.
//   example_cpab_signals SCAN.nii.gz PICTURE.png
// A row of the picture is a signal: on the left before, on the right after.

#include <cmath>
#include <cstdio>

#include "autograd/elementwise.hpp"
#include "autograd/layout.hpp"
#include "autograd/losses.hpp"
#include "autograd/reduce.hpp"
#include "layers/cpab_transformer.hpp"
#include "layers/optimizer.hpp"
#include "registration/nifti.hpp"
#include "registration/slice_picture.hpp"

using namespace cinnabar;

constexpr std::int64_t kSignals = 24;
constexpr std::int64_t kHeight = 6;  // pixels of a signal in the picture

/// Signals [N, 1, W] as an image [1, 1, N kHeight, W].
Tensor rows_of(const Variable& signals) {
  const std::int64_t width = signals.shape()[2];
  const Variable tall = expand(signals, {kSignals, kHeight, width});
  return reshape(tall, {1, 1, kSignals * kHeight, width}).value();
}

int main(int count, char** words) try {
  if (count != 3) return std::fprintf(stderr, "usage: example_cpab_signals SCAN PICTURE\n"), 2;
  const Variable scan(registration::read_image(words[1]).voxels);
  const Shape& shape = scan.shape();
  const std::int64_t z = shape[2] / 2, y = shape[3] / 2;
  const Variable middle = slice(scan / amax(scan), {{}, {}, {z, z + 1}, {y, y + 1}});
  const Variable line = reshape(middle, {1, 1, shape[4]});

  const CpabTransformer warp({16});
  const Variable signals = warp(line, Variable(warp.space().sample_prior(kSignals, 0.2, 0.3, {.seed = 3})));
  Variable theta(Tensor::zeros({kSignals, warp.space().dim()}), true);
  const auto spread = [](const Variable& x) { return mean(square(x - mean(x, {0}, true))); };
  Adam adam({{"theta", theta}}, {.learning_rate = 0.05});
  for (int step = 0; step < 200; ++step) {
    adam.set_rate_factor(cosine_schedule(200)(step));
    adam.clear_gradients();
    (spread(warp(signals, theta)) + 1e-4 * mean(square(theta))).backward();
    adam.step();
  }

  const NoGrad quiet;
  const Variable aligned = warp(signals, theta);
  std::printf("spread before %.4f after %.4f\n", std::sqrt(spread(signals).value().item()),
              std::sqrt(spread(aligned).value().item()));
  registration::write_slices(words[2], {rows_of(signals), rows_of(aligned)});
  return 0;
} catch (const std::exception& error) {
  return std::fprintf(stderr, "example_cpab_signals: %s\n", error.what()), 1;
}
