#pragma once

#include <optional>

#include "data/volume_set.hpp"
#include "models/training.hpp"
#include "models/voxelmorph.hpp"

namespace cinnabar {

struct VoxelmorphTrainingOptions : TrainingOptions {
  VoxelmorphLoss loss;
  std::int64_t batch_size = 1;  ///< pairs, which may have grids of different extents
  bool swap = false;            ///< exchange moving and fixed image of every other pair, by chance
  bool mirror = false;          ///< exchange left and right of every other pair, by chance
  std::uint64_t seed = 0;       ///< of order and chance
};

/// The training of a VoxelMorph network on whole volumes, images "moving" and "target" of a VolumeSet, whose
/// x axis goes from left to right. Every pair is drawn once an epoch, in a random order. The loss of the
/// curve is voxelmorph_loss, a mean over pairs; that of predicting zero leaves the moving image as it is.
class VoxelmorphTraining : public Training {
 public:
  /// Trains `network`, which must stay, on the device where it is. Without `validation` nothing is validated
  /// and the last weights are the best.
  VoxelmorphTraining(Voxelmorph& network, VolumeSet training, std::optional<VolumeSet> validation,
                     const VoxelmorphTrainingOptions& options);

 private:
  BatchLoss batch_loss(std::int64_t step) override;
  std::optional<LossSums> measure(const std::function<bool()>& keep_going) override;

  /// The pair of draw number `draw`, a function of that and the seed.
  ImagePair drawn(std::int64_t draw) const;
  BatchLoss loss_of(const ImagePair& pair);

  Voxelmorph& network_;
  VolumeSet volumes_;
  std::optional<VolumeSet> validation_;
  VoxelmorphTrainingOptions options_;
};

}  // namespace cinnabar
