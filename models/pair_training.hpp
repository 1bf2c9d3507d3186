#pragma once

#include <optional>

#include "models/pair_draws.hpp"
#include "models/training.hpp"

namespace cinnabar {

struct PairTrainingOptions : TrainingOptions {
  std::int64_t batch_size = 1;  ///< pairs, which may have grids of different extents
  PairDrawOptions draws;
};

/// A training on whole pairs (PairDraws); subclasses say what the loss of one is. Without `validation`
/// nothing is validated and the last weights are the best.
class PairTraining : public Training {
 protected:
  /// `network` must stay. `loss_scale` as in Training::prepare.
  PairTraining(Module& network, VolumeSet training, std::optional<VolumeSet> validation,
               const PairTrainingOptions& options, double loss_scale = 0.0);

  /// The loss of a pair's images, on the CPU, with a graph where one is wanted. `draw` is the number of a
  /// training's draw; none in validation.
  virtual BatchLoss pair_loss(const Batch& images, std::optional<std::int64_t> draw) = 0;

 private:
  BatchLoss batch_loss(std::int64_t step) override;
  std::optional<LossSums> measure(const std::function<bool()>& keep_going) override;

  PairDraws draws_;
  std::optional<VolumeSet> validation_;
  std::int64_t batch_size_;
};

}  // namespace cinnabar
