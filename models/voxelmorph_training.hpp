#pragma once

#include "models/pair_training.hpp"
#include "models/voxelmorph.hpp"

namespace cinnabar {

struct VoxelmorphTrainingOptions : PairTrainingOptions {
  VoxelmorphLoss loss;
};

/// The training of a VoxelMorph network on whole pairs. The loss of the curve is voxelmorph_loss, a mean over
/// pairs; that of predicting zero leaves the moving image as it is.
class VoxelmorphTraining : public PairTraining {
 public:
  /// Trains `network`, which must stay, on the device where it is.
  VoxelmorphTraining(Voxelmorph& network, VolumeSet training, std::optional<VolumeSet> validation,
                     const VoxelmorphTrainingOptions& options);

 private:
  BatchLoss pair_loss(const Batch& images, std::optional<std::int64_t> draw) override;

  Voxelmorph& network_;
  VoxelmorphLoss loss_;
};

}  // namespace cinnabar
