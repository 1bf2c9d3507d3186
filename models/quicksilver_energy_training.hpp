#pragma once

#include "models/pair_training.hpp"
#include "models/quicksilver.hpp"

namespace cinnabar {

struct QuicksilverEnergyOptions : PairTrainingOptions {
  MatchingOptions matching;  ///< the energy: its metric, sigma and similarity
  double velocity = 0.0;     ///< W below; above 0 the volumes need momenta, and none are exchanged
  std::int64_t stride = 14;  ///< largest distance of neighbouring patches, in voxels
};

/// The training of a Quicksilver network by what its momenta are for: whole pairs are predicted as they will
/// be (models/quicksilver_prediction.hpp), the momenta shot, and the loss is the energy that matching would
/// minimise,
///
///   E(m0) = 1/2 <m0, K m0> + data(I0 o psi(1), I1) + folding,   m0 = the average of the network's patches,
///
/// with its exact gradient through shooting and patches to the weights. No momenta are needed. Where there
/// are some, m, W |K (m0 - m)|^2 can be added: the energy leaves open much that matching decides on its way
/// from coarse to fine. A draw lays its patches at distances of its own, two thirds of `stride` to all of it
/// on each axis, so that borders of patches lie everywhere. A momentum that cannot be shot is shortened until
/// it can. The loss of predicting zero is that of the identity.
class QuicksilverEnergyTraining : public PairTraining {
 public:
  /// Trains `network`, which must stay, on the device where it is. With `prediction`, which must stay there
  /// too, `network` is the correction network for it: it sees the target pulled back along the geodesic of
  /// that prediction, or by chance of a prediction it has corrected once, and adds to its momentum. Without
  /// `validation` nothing is validated and the last weights are the best.
  QuicksilverEnergyTraining(Quicksilver& network, VolumeSet training, std::optional<VolumeSet> validation,
                            const QuicksilverEnergyOptions& options, Quicksilver* prediction = nullptr);

 private:
  /// How a pair is looked at.
  struct View {
    Shape stride;
    int corrections = 0;  ///< before the one that is trained
  };

  BatchLoss pair_loss(const Batch& images, std::optional<std::int64_t> draw) override;

  View view_of(std::optional<std::int64_t> draw) const;
  Variable predicted(Quicksilver& network, const ImagePair& pair, const Shape& stride) const;
  Variable momentum_of(const ImagePair& pair, const View& view);

  Quicksilver& network_;
  Quicksilver* prediction_;
  QuicksilverEnergyOptions options_;
};

}  // namespace cinnabar
