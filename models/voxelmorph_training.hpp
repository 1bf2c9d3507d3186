#pragma once

#include <optional>

#include "models/pair_draws.hpp"
#include "models/training.hpp"
#include "models/voxelmorph.hpp"

namespace cinnabar {

struct VoxelmorphTrainingOptions : TrainingOptions {
  VoxelmorphLoss loss;
  std::int64_t batch_size = 1;  ///< pairs, which may have grids of different extents
  PairDrawOptions draws;
};

/// The training of a VoxelMorph network on whole pairs (PairDraws). The loss of the curve is voxelmorph_loss,
/// a mean over pairs; that of predicting zero leaves the moving image as it is.
class VoxelmorphTraining : public Training {
 public:
  /// Trains `network`, which must stay, on the device where it is. Without `validation` nothing is validated
  /// and the last weights are the best.
  VoxelmorphTraining(Voxelmorph& network, VolumeSet training, std::optional<VolumeSet> validation,
                     const VoxelmorphTrainingOptions& options);

 private:
  BatchLoss batch_loss(std::int64_t step) override;
  std::optional<LossSums> measure(const std::function<bool()>& keep_going) override;

  BatchLoss loss_of(const ImagePair& pair);

  Voxelmorph& network_;
  PairDraws draws_;
  std::optional<VolumeSet> validation_;
  VoxelmorphTrainingOptions options_;
};

}  // namespace cinnabar
