#pragma once

#include <functional>
#include <limits>
#include <optional>
#include <vector>

#include "layers/loss_scaler.hpp"
#include "layers/optimizer.hpp"

namespace cinnabar {

enum class RateSchedule { constant, cosine };

/// How long and how a network is trained by Adam, whatever it learns.
struct TrainingOptions {
  double epochs = 10;
  double learning_rate = 1e-4;
  RateSchedule schedule = RateSchedule::constant;  ///< cosine: falls to 0 at the last step
  double moving_average = 0.0;        ///< decay; above 0 the averaged weights are validated and kept
  std::int64_t validation_steps = 0;  ///< batches between validations; 0: an epoch
  std::int64_t patience = 0;          ///< stops after so many validations without improvement; 0: never
};

/// A loss as a mean, and its ratio to the loss of predicting zero: 1 is no better than no registration.
struct TrainingLoss {
  double mean = std::numeric_limits<double>::quiet_NaN();
  double ratio = std::numeric_limits<double>::quiet_NaN();
};

/// The curve after `step` batches: the training loss over the batches since the point before, and the
/// validation loss where it was measured there.
struct LossPoint {
  std::int64_t step = 0;
  double epoch = 0.0;
  TrainingLoss training;
  TrainingLoss validation;
};

/// A training, batch by batch; subclasses say what a batch is and what its loss.
///
///   while (!training.finished()) {
///     training.validation_due() ? training.validate() : training.advance();
///   }
///
/// What it does is a function of weights, data and options alone. state() holds all that changes, so that a
/// training which goes on from it makes the same bits as one that was never stopped, on the same device.
class Training {
 public:
  virtual ~Training() = default;
  Training(const Training&) = delete;
  Training& operator=(const Training&) = delete;

  /// One batch. Throws InputError where the loss is no longer finite.
  void advance();
  bool validation_due() const;
  /// Measures the validation loss and keeps the weights if they are the best. False, with nothing changed,
  /// where `keep_going` said so between two batches.
  bool validate(const std::function<bool()>& keep_going = {});
  bool finished() const { return !validation_due() && (step_ >= total_steps() || out_of_patience()); }
  bool out_of_patience() const { return plan_.patience > 0 && stale_ >= plan_.patience; }

  std::int64_t step() const { return step_; }
  std::int64_t total_steps() const { return total_steps_; }
  double epochs() const { return plan_.epochs; }
  double epoch_of(std::int64_t step) const;
  std::int64_t batch_size() const { return batch_size_; }
  /// What an epoch draws as often as there are such: places of patches, or pairs.
  std::int64_t places() const { return places_; }
  const std::vector<LossPoint>& curve() const { return curve_; }
  /// The training loss since the curve's last point. Waits for the device.
  TrainingLoss running_loss();
  /// The best validation so far, NaN before the first.
  const LossPoint& best() const { return best_point_; }
  /// The weights of that validation; without one, the present ones (averaged where asked for).
  SafeTensors best_weights() const;

  SafeTensors state();
  /// Throws InputError, with the training unusable, where the state is not that of such a training.
  void load_state(const SafeTensors& state);

 protected:
  /// Losses of a batch that may still be computed on the device.
  struct BatchLoss {
    Variable loss;
    Tensor zero;           ///< loss of predicting zero
    double numbers = 0.0;  ///< that the mean is over
  };
  struct LossSums {
    double loss = 0.0;
    double zero = 0.0;
    double numbers = 0.0;
    TrainingLoss result() const;
  };

  /// `network` must stay.
  Training(Module& network, const TrainingOptions& options) : network_(network), plan_(options) {}
  /// To be called once, at the end of the subclass's constructor. `loss_scale` above 0 is the first scale of
  /// a LossScaler (layers/loss_scaler.hpp).
  void prepare(std::int64_t places, std::int64_t batch_size, bool validates, double loss_scale = 0.0);

  /// The loss of batch number `step`, with a graph.
  virtual BatchLoss batch_loss(std::int64_t step) = 0;
  /// The loss of all that is validated with, in evaluation mode and without a graph. None where `keep_going`
  /// said so.
  virtual std::optional<LossSums> measure(const std::function<bool()>& keep_going) = 0;
  /// Batch number `step` is the next one.
  virtual void seek(std::int64_t) {}

  Device device() const { return network_.parameters().front().device(); }

 private:
  struct Pending {
    std::int64_t step;
    Tensor loss, zero;
    double numbers;
  };

  bool step_down(const Variable& loss);
  void collect_pending();
  bool is_point(std::int64_t step) const;

  Module& network_;
  TrainingOptions plan_;
  std::optional<Adam> optimizer_;
  std::optional<LossScaler> scaler_;
  std::optional<MovingAverage> average_;
  Schedule rate_;
  bool validates_ = false;
  std::int64_t places_ = 0;
  std::int64_t batch_size_ = 0;
  std::int64_t total_steps_ = 0;
  std::int64_t validation_steps_ = 0;

  std::int64_t step_ = 0;
  std::int64_t validated_step_ = 0;
  std::int64_t stale_ = 0;  ///< validations since the best one
  LossSums sums_;           ///< since the curve's last point
  std::vector<Pending> pending_;
  std::vector<LossPoint> curve_;
  LossPoint best_point_;
  SafeTensors best_;
};

}  // namespace cinnabar
