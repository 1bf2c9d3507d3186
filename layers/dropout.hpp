#pragma once

#include "layers/initializer.hpp"
#include "layers/module.hpp"

namespace cinnabar {

/// Drops elements with probability p in training, and in evaluation too where asked to (sampling from a
/// Bayesian network: Gal and Ghahramani, ICML 2016). Every call takes the next piece of one random sequence,
/// so layers need different streams; a layer inside a checkpoint would draw another mask when it runs again.
class DropoutLayer : public Layer {
 public:
  DropoutLayer(double p, std::uint64_t seed, std::uint64_t stream);
  Variable forward(const Variable& x) override;

  /// Whether to drop in evaluation as well.
  void always(bool on) { always_ = on; }

 private:
  double p_;
  bool always_ = false;
  Generator generator_;
};

}  // namespace cinnabar
