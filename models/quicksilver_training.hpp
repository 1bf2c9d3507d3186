#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "data/data_loader.hpp"
#include "kernels/green_operator.hpp"
#include "models/quicksilver.hpp"
#include "models/quicksilver_patches.hpp"
#include "models/training.hpp"

namespace cinnabar {

/// What a network is trained to make small: sum |r| + velocity sum (K r)^2 over the batch, where r is the
/// difference of predicted and true momenta and K r the velocity that it makes by itself, with no momentum
/// around the patch. The first term alone is that of Yang et al. It mostly measures what is fine in a
/// momentum and smoothed away by K, and draws predictions towards zero; an error of a patch's mean counts
/// little there, but displaces whole regions (docs/training.md).
struct MomentumLossWeights {
  double velocity = 0.0;
  FluidOperator fluid;  ///< L of the metric; K = L^-1
};

/// The defaults are those of Yang et al. (NeuroImage 2017): L1 loss summed over the batch, Adam.
struct QuicksilverTrainingOptions : TrainingOptions {
  QuicksilverPatchOptions patches;
  MomentumLossWeights loss;
  std::int64_t prefetch = 2;  ///< batches made ahead
};

/// The training of a Quicksilver network. The loss of its curve is a mean over components and voxels of
/// patches, by default |prediction - momentum| in the momentum's unit. A network that multiplies in fp16 has
/// its loss scaled (layers/loss_scaler.hpp); a batch whose gradients overflow changes no weight.
class QuicksilverTraining : public Training {
 public:
  /// Trains `network`, which must stay, on the device where it is. Volumes are those of QuicksilverPatches;
  /// without `validation`, whose patches are those of the grid, nothing is validated and the last weights are
  /// the best.
  QuicksilverTraining(Quicksilver& network, VolumeSet training, std::optional<VolumeSet> validation,
                      const QuicksilverTrainingOptions& options);

  const QuicksilverTrainingOptions& options() const { return options_; }

 private:
  BatchLoss batch_loss(std::int64_t step) override;
  std::optional<LossSums> measure(const std::function<bool()>& keep_going) override;
  void seek(std::int64_t step) override;

  Quicksilver& network_;
  std::optional<VolumeSet> validation_;
  Tensor validation_starts_;
  QuicksilverTrainingOptions options_;
  std::shared_ptr<const QuicksilverPatches> patches_;
  DataLoader loader_;
};

}  // namespace cinnabar
