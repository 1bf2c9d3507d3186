#pragma once

#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "data/data_loader.hpp"
#include "kernels/green_operator.hpp"
#include "layers/loss_scaler.hpp"
#include "layers/optimizer.hpp"
#include "models/quicksilver.hpp"
#include "models/quicksilver_patches.hpp"

namespace cinnabar {

enum class RateSchedule { constant, cosine };

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
struct QuicksilverTrainingOptions {
  QuicksilverPatchOptions patches;
  double epochs = 10;
  MomentumLossWeights loss;
  double learning_rate = 1e-4;
  RateSchedule schedule = RateSchedule::constant;  ///< cosine: falls to 0 at the last step
  double moving_average = 0.0;        ///< decay; above 0 the averaged weights are validated and kept
  std::int64_t validation_steps = 0;  ///< batches between validations; 0: an epoch
  std::int64_t patience = 0;          ///< stops after so many validations without improvement; 0: never
  std::int64_t prefetch = 2;          ///< batches made ahead
};

/// The loss as a mean over components and voxels of patches, by default |prediction - momentum| in the
/// momentum's unit, and its ratio to the loss of predicting zero: 1 is no better than no registration.
struct MomentumLoss {
  double mean = std::numeric_limits<double>::quiet_NaN();
  double ratio = std::numeric_limits<double>::quiet_NaN();
};

/// The curve after `step` batches: the training loss over the batches since the point before, and the
/// validation loss where it was measured there.
struct LossPoint {
  std::int64_t step = 0;
  double epoch = 0.0;
  MomentumLoss training;
  MomentumLoss validation;
};

/// The training of a Quicksilver network, batch by batch:
///
///   while (!training.finished()) {
///     training.validation_due() ? training.validate() : training.advance();
///   }
///
/// A network that multiplies in fp16 has its loss scaled (layers/loss_scaler.hpp); a batch whose gradients
/// overflow changes no weight. What it does is a function of weights, volumes and options alone. state()
/// holds all that changes, so that a training which goes on from it makes the same bits as one that was never
/// stopped, on the same device.
class QuicksilverTraining {
 public:
  /// Trains `network`, which must stay, on the device where it is. Volumes are those of QuicksilverPatches;
  /// without `validation` nothing is validated and the last weights are the best.
  QuicksilverTraining(Quicksilver& network, VolumeSet training, std::optional<VolumeSet> validation,
                      const QuicksilverTrainingOptions& options);

  /// One batch. Throws InputError where the loss is no longer finite.
  void advance();
  bool validation_due() const;
  /// Measures the loss over the grid of the validation volumes and keeps the weights if they are the best.
  /// False, with nothing changed, where `keep_going` said so between two batches.
  bool validate(const std::function<bool()>& keep_going = {});
  bool finished() const { return !validation_due() && (step_ >= total_steps() || out_of_patience()); }
  bool out_of_patience() const { return options_.patience > 0 && stale_ >= options_.patience; }

  std::int64_t step() const { return step_; }
  std::int64_t total_steps() const { return total_steps_; }
  double epoch_of(std::int64_t step) const;
  /// Places of patches in an epoch.
  std::int64_t places() const { return patches_->places(); }
  const QuicksilverTrainingOptions& options() const { return options_; }
  const std::vector<LossPoint>& curve() const { return curve_; }
  /// The training loss since the curve's last point. Waits for the device.
  MomentumLoss running_loss();
  /// The best validation so far, NaN before the first.
  const LossPoint& best() const { return best_point_; }
  /// The weights of that validation; without one, the present ones (averaged where asked for).
  SafeTensors best_weights() const;

  SafeTensors state();
  /// Throws InputError, with the training unusable, where the state is not that of such a training.
  void load_state(const SafeTensors& state);

 private:
  struct Sums {
    double loss = 0.0;
    double zero = 0.0;  ///< loss of predicting zero
    double numbers = 0.0;
    MomentumLoss result() const;
  };
  /// Losses of a batch that may still be computed on the device.
  struct Pending {
    std::int64_t step;
    Tensor loss, zero;
    double numbers;
  };

  bool step_down(const Variable& loss);
  std::optional<Sums> measure(const std::function<bool()>& keep_going);
  void collect_pending();
  bool is_point(std::int64_t step) const;

  Quicksilver& network_;
  std::optional<VolumeSet> validation_;
  Tensor validation_starts_;
  QuicksilverTrainingOptions options_;
  std::shared_ptr<const QuicksilverPatches> patches_;
  DataLoader loader_;
  Adam optimizer_;
  std::optional<LossScaler> scaler_;  ///< where the network multiplies in fp16
  std::optional<MovingAverage> average_;
  Schedule rate_;
  std::int64_t total_steps_ = 0;
  std::int64_t validation_steps_ = 0;

  std::int64_t step_ = 0;
  std::int64_t validated_step_ = 0;
  std::int64_t stale_ = 0;  ///< validations since the best one
  Sums sums_;               ///< since the curve's last point
  std::vector<Pending> pending_;
  std::vector<LossPoint> curve_;
  LossPoint best_point_;
  SafeTensors best_;
};

}  // namespace cinnabar
