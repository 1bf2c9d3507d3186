#pragma once

#include "layers/initializer.hpp"
#include "layers/module.hpp"

namespace cinnabar {

/// Drops elements with probability p in training, and in evaluation too where asked to (sampling from a
/// Bayesian network: Gal and Ghahramani, ICML 2016). Every call takes the next piece of one random sequence
/// (Module::random_state), so layers need different streams; a layer inside a checkpoint would draw another
/// mask when it runs again.
class DropoutLayer : public Layer {
 public:
  DropoutLayer(double p, std::uint64_t seed, std::uint64_t stream);
  Variable forward(const Variable& x) override;
  bool join(EpilogueInputs& epilogue, std::int64_t elements) override;

  /// Whether to drop in evaluation as well.
  void always(bool on) { always_ = on; }

 private:
  bool drops() const { return (training() || always_) && p_ > 0.0; }

  double p_;
  bool always_ = false;
  Generator generator_;
};

}  // namespace cinnabar
