#pragma once

#include "layers/optimizer.hpp"

namespace cinnabar {

struct LossScaleOptions {
  double scale = 65536.0;               ///< the first one
  double growth = 2.0;                  ///< factor after growth_interval steps in a row
  double backoff = 0.5;                 ///< factor after a step with an overflow
  std::int64_t growth_interval = 2000;  ///< steps
};

/// Keeps the small gradients of a network that stores or multiplies in f16 from rounding to zero
/// (Micikevicius et al., "Mixed precision training", ICLR 2018, section 3.2): the loss is multiplied by a
/// scale, its gradients are divided by it before the step. Parameters and running averages stay f32. Where a
/// gradient is infinite or NaN the step is left out and the scale shrinks. For one optimiser:
///
///   scaler.scaled(loss).backward();
///   scaler.unscale(adam);                      // only to look at the gradients before the step:
///   clip_gradient_norm(net.parameters(), 1.0);
///   scaler.step(adam);
class LossScaler {
 public:
  explicit LossScaler(const LossScaleOptions& options = {});

  double scale() const { return scale_; }
  Variable scaled(const Variable& loss) const;

  /// Divides the gradients by the scale, once a step, in one pass that also looks for overflows. Waits for
  /// the device. Returns whether all are finite.
  bool unscale(Optimizer& optimizer);
  /// Unscales where that is still to do, steps unless a gradient overflowed, and sets the next scale. Returns
  /// whether it stepped. Throws Error where the scale falls below 2^-16: then the scale is not to blame.
  bool step(Optimizer& optimizer);

  /// The scale and the steps since it changed. Loading throws InputError where they are missing.
  SafeTensors state() const;
  void load_state(const SafeTensors& state);

 private:
  enum class Gradients { scaled, finite, overflown };

  LossScaleOptions options_;
  double scale_;
  std::int64_t clean_steps_ = 0;
  Gradients gradients_ = Gradients::scaled;
};

}  // namespace cinnabar
