#pragma once

#include "engine/random.hpp"
#include "kernels/dropout.hpp"
#include "kernels/epilogue.hpp"

// What one element of an epilogue is, for both devices and for the convolutions that end with one.

namespace cinnabar {

template <class T>
CINNABAR_HD T activation_value(Activation activation, T z, T slope) {
  switch (activation) {
    case Activation::none:
      return z;
    case Activation::relu:
      return z > T(0) || z != z ? z : T(0);
    default:
      return z > T(0) ? z : slope * z;
  }
}

/// The gradient of z. `saved` is z, or y where that has z's sign.
template <class T>
CINNABAR_HD T activation_gradient(Activation activation, T grad, T saved, T slope) {
  switch (activation) {
    case Activation::none:
      return grad;
    case Activation::relu:
      return saved > T(0) ? grad : T(0);
    default:
      return saved > T(0) ? grad : slope * grad;
  }
}

/// An epilogue as its kernels see it.
template <class T>
struct EpilogueMath {
  const T* bias;
  const T* weight;
  std::int64_t weight_stride;  ///< 0 for one weight for all channels
  T slope;
  Activation activation;
  bool drops;  ///< false: everything is kept as it is
  DropoutMask<T> mask;
  RandomSequence sequence;  ///< of the mask
  T* before;

  bool does_nothing() const {
    return bias == nullptr && activation == Activation::none && !drops && before == nullptr;
  }
  CINNABAR_HD T bias_of(std::int64_t channel) const { return bias == nullptr ? T(0) : bias[channel]; }
  CINNABAR_HD T slope_of(std::int64_t channel) const {
    return weight == nullptr ? slope : weight[channel * weight_stride];
  }
};

template <class T>
EpilogueMath<T> epilogue_math(const Epilogue& epilogue) {
  EpilogueMath<T> math{};
  if (epilogue.bias.defined()) math.bias = epilogue.bias.data<T>();
  if (epilogue.weight.defined()) {
    math.weight = epilogue.weight.data<T>();
    math.weight_stride = epilogue.weight.numel() > 1 ? 1 : 0;
  }
  math.slope = static_cast<T>(epilogue.slope);
  math.activation = epilogue.activation;
  math.drops = epilogue.dropout > 0.0;
  math.mask = dropout_mask<T>(epilogue.dropout);
  math.sequence = epilogue.sequence;
  if (Tensor before = epilogue.before; before.defined()) math.before = before.data<T>();
  return math;
}

/// The uniform numbers of a sequence by index; indices in one group of four share a Philox counter.
class UniformCursor {
 public:
  CINNABAR_HD float at(const RandomSequence& sequence, std::int64_t index) {
    const std::uint64_t number = sequence.offset + static_cast<std::uint64_t>(index);
    if (!filled_ || number / 4 != counter_) {
      counter_ = number / 4;
      filled_ = true;
      words_ = philox_4x32_10(sequence.seed, sequence.stream, counter_);
    }
    const auto w = static_cast<unsigned>(number % 4);
    // Selected by comparisons: an index would put the words in memory.
    const std::uint32_t low = w == 0 ? words_.word[0] : words_.word[1];
    const std::uint32_t high = w == 2 ? words_.word[2] : words_.word[3];
    return uniform_from_bits(w < 2 ? low : high);
  }

 private:
  PhiloxWords words_{};
  std::uint64_t counter_ = 0;
  bool filled_ = false;
};

/// y of element `index` in `channel`, from x; writes z where it is wanted.
template <class T>
CINNABAR_HD T epilogue_value(const EpilogueMath<T>& math, std::int64_t channel, std::int64_t index, T x,
                             UniformCursor& uniform) {
  const T z = x + math.bias_of(channel);
  if (math.before != nullptr) math.before[index] = z;
  const T a = activation_value(math.activation, z, math.slope_of(channel));
  return math.drops ? math.mask.apply(uniform.at(math.sequence, index), a) : a;
}

}  // namespace cinnabar
