#pragma once

#include "kernels/random.hpp"

namespace cinnabar {

/// Hands out disjoint pieces of one random sequence, so that a network's initial values depend only on the
/// seed and the order in which its layers are made.
class Generator {
 public:
  explicit Generator(std::uint64_t seed, std::uint64_t stream = 0) : next_{seed, stream, 0} {}

  /// A piece of `numbers` numbers.
  RandomSequence take(std::int64_t numbers) {
    const RandomSequence piece = next_;
    next_.offset += static_cast<std::uint64_t>(numbers);
    return piece;
  }

  /// Where the next piece starts; setting it goes on from there.
  const RandomSequence& place() const { return next_; }
  void set_place(const RandomSequence& place) { next_ = place; }

 private:
  RandomSequence next_;
};

/// Inputs that reach one output of a weight [out, in, ...]: its size without the outermost axis.
std::int64_t fan_in(const Shape& weight);

/// f32 tensors on the CPU.

/// PyTorch's default of linear and convolution layers, weight and bias alike: uniform in +-1 / sqrt(fan).
Tensor uniform_by_fan(const Shape& shape, std::int64_t fan, Generator& generator);
/// Normal with deviation sqrt(2 / ((1 + slope^2) fan_in)), which keeps the size of activations through leaky
/// rectifiers (He et al., ICCV 2015, eq. 15).
Tensor kaiming_normal(const Shape& weight, Generator& generator, double slope = 0.0);
/// Uniform in +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, AISTATS 2010, eq. 16).
Tensor xavier_uniform(const Shape& weight, Generator& generator);

}  // namespace cinnabar
