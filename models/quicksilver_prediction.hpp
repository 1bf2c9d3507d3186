#pragma once

#include <functional>

#include "models/quicksilver.hpp"

namespace cinnabar {

/// How a network that sees patches is applied to whole volumes.
struct PredictionOptions {
  std::int64_t stride = 14;       ///< distance of neighbouring patches on every axis, in voxels
  std::int64_t batch_size = 64;   ///< patches at a time: the memory, but no bit of the result, depends on it
  bool skip_first_patch = false;  ///< as the original program does by mistake
  /// Called after every batch with the number of patches given to the network since the predictor was made.
  std::function<void(std::int64_t patches)> observe = {};
};

/// The prediction of one pair, ready to be made once or sampled many times. Patches lie on a grid whose last
/// ones end flush with the volume; those that are background in both images are left out
/// (data/patch_grid.hpp). An axis shorter than a patch is continued by zeros. Overlaps are averaged in a
/// fixed order, and voxels that no patch covers are 0. Everything but the list of patches stays on the
/// volumes' device.
class MomentumPredictor {
 public:
  /// Volumes [1, 1, D, H, W] on the network's device. The network must outlive the predictor.
  MomentumPredictor(Quicksilver& network, const Tensor& moving, const Tensor& target,
                    const PredictionOptions& options = {});

  std::int64_t patches() const { return starts_.shape(0); }
  /// The momentum [1, 3, D, H, W] that the network predicts, without dropout.
  Tensor predict();
  /// The same with dropout: the next draw from the posterior, by the sequence of the network's seed.
  Tensor sample();

 private:
  Tensor run();

  Quicksilver& network_;
  PredictionOptions options_;
  std::int64_t done_ = 0;  ///< patches
  Tensor volumes_;         ///< moving and target as channels, [1, 2, D, H, W]
  Tensor starts_;          ///< of the patches to predict, on the volumes' device
};

/// One prediction: [1, 1, D, H, W] twice -> [1, 3, D, H, W].
Tensor predict_momentum(Quicksilver& network, const Tensor& moving, const Tensor& target,
                        const PredictionOptions& options = {});

}  // namespace cinnabar
