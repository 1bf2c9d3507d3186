#include "models/voxelmorph_training.hpp"

namespace cinnabar {

VoxelmorphTraining::VoxelmorphTraining(Voxelmorph& network, VolumeSet training,
                                       std::optional<VolumeSet> validation,
                                       const VoxelmorphTrainingOptions& options)
    : PairTraining(network, std::move(training), std::move(validation), options),
      network_(network),
      loss_(options.loss) {}

Training::BatchLoss VoxelmorphTraining::pair_loss(const Batch& images, std::optional<std::int64_t>) {
  const ImagePair pair = image_pair(images, device());
  const Variable moving(pair.moving), fixed(pair.fixed);
  const Variable velocity = network_.velocity(moving, fixed);
  return {voxelmorph_loss(moving, fixed, velocity, network_.options().squarings, loss_),
          dissimilarity(moving, fixed, loss_).value(), 1.0};
}

}  // namespace cinnabar
