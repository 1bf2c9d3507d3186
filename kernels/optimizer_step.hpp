#pragma once

#include <cmath>
#include <span>

#include "engine/host_device.hpp"
#include "kernels/op.hpp"

namespace cinnabar {

/// Stochastic gradient descent with PyTorch's conventions.
struct SgdOptions {
  double learning_rate = 1e-2;
  double momentum = 0.0;
  bool nesterov = false;      ///< needs momentum and no dampening
  double weight_decay = 0.0;  ///< added to the gradient, times the parameter
  double dampening = 0.0;     ///< share of the gradient kept out of the momentum, but of the first one
};

/// Adam (Kingma and Ba, ICLR 2015, algorithm 1), AdamW where `decoupled` (Loshchilov and Hutter, ICLR 2019,
/// algorithm 2), AMSGrad (Reddi, Kale and Kumar, ICLR 2018) with the bias correction PyTorch gives it.
struct AdamOptions {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.0;
  bool decoupled = false;  ///< shrink the parameter by learning_rate * weight_decay instead of adding to g
  bool amsgrad = false;    ///< divide by the largest second moment so far
};

/// One parameter with what its update reads and changes, all of one shape, dtype and device.
struct SgdParameter {
  Tensor value;
  Tensor grad;
  Tensor momentum;     ///< undefined where options.momentum is 0; starts at zero
  bool first = false;  ///< whether this is its first update, which dampening leaves alone
};
struct AdamParameter {
  Tensor value;
  Tensor grad;
  Tensor first_moment;    ///< starts at zero, like the others
  Tensor second_moment;   ///< running mean of g^2
  Tensor largest;         ///< undefined unless amsgrad: largest second moment so far
  std::int64_t step = 1;  ///< how many updates this one makes, itself included
};

/// One optimiser update of any number of parameters at once, in place: with g the gradient, weight decay
/// added unless it is decoupled,
///   sgd:  b <- momentum b + (1 - dampening) g;
///         value <- value - rate b, or - rate (g + momentum b) with nesterov
///   adam: m <- beta1 m + (1 - beta1) g,  v <- beta2 v + (1 - beta2) g^2,
///         value <- value - rate m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon)
/// The bias corrections are computed in float64. f32 and f64 on the CPU, f32 on CUDA, where one launch takes
/// up to 40 parameters. The gradients are only read. Deterministic: every element is on its own.
struct OptimizerStep {
  void (*sgd)(std::span<SgdParameter> parameters, const SgdOptions& options);
  void (*adam)(std::span<AdamParameter> parameters, const AdamOptions& options);
  /// Multiplies all gradients, of one dtype and device, by a factor in place. Assigns to `overflow`, i32 of
  /// one element on that device: 1 where an element was infinite or NaN, else 0.
  void (*unscale)(std::span<Tensor> gradients, double factor, Tensor& overflow);
};

CINNABAR_OP(OptimizerStep, optimizer_step);

/// The update's numbers in the elements' precision; those that depend on the step are apart.
template <class T>
struct SgdNumbers {
  T rate, momentum, decay;
  bool nesterov;

  explicit SgdNumbers(const SgdOptions& options)
      : rate(static_cast<T>(options.learning_rate)),
        momentum(static_cast<T>(options.momentum)),
        decay(static_cast<T>(options.weight_decay)),
        nesterov(options.nesterov) {}

  /// Updates one element; `buffer` is null without momentum, `share` is what it takes of the gradient.
  CINNABAR_HD void operator()(T& value, T g, T* buffer, T share) const {
    g += decay * value;
    T direction = g;
    if (buffer != nullptr) {
      *buffer = momentum * *buffer + share * g;
      direction = nesterov ? g + momentum * *buffer : *buffer;
    }
    value -= rate * direction;
  }
};

/// 1 - dampening, but 1 at the first update.
inline double sgd_share(const SgdOptions& options, const SgdParameter& parameter) {
  return parameter.first ? 1.0 : 1.0 - options.dampening;
}

template <class T>
struct AdamNumbers {
  T beta1, beta2, rest1, rest2, epsilon, decay, shrink;

  explicit AdamNumbers(const AdamOptions& options)
      : beta1(static_cast<T>(options.beta1)),
        beta2(static_cast<T>(options.beta2)),
        rest1(static_cast<T>(1.0 - options.beta1)),
        rest2(static_cast<T>(1.0 - options.beta2)),
        epsilon(static_cast<T>(options.epsilon)),
        decay(static_cast<T>(options.decoupled ? 0.0 : options.weight_decay)),
        shrink(static_cast<T>(options.decoupled ? options.learning_rate * options.weight_decay : 0.0)) {}

  /// Updates one element; `largest` is null unless amsgrad. rate = learning rate / (1 - beta1^t),
  /// root = 1 / sqrt(1 - beta2^t).
  CINNABAR_HD void operator()(T& value, T g, T& m, T& v, T* largest, T rate, T root) const {
    g += decay * value;
    value -= shrink * value;
    m = beta1 * m + rest1 * g;
    v = beta2 * v + rest2 * g * g;
    T second = v;
    if (largest != nullptr) {
      *largest = *largest > v ? *largest : v;
      second = *largest;
    }
    value -= rate * m / (std::sqrt(second) * root + epsilon);
  }
};

template <class T>
CINNABAR_HD bool is_finite(T value) {
  return value - value == T(0);
}

struct AdamStepSize {
  double rate;
  double root;
};
inline AdamStepSize adam_step_size(const AdamOptions& options, std::int64_t step) {
  const auto t = static_cast<double>(step);
  return {options.learning_rate / (1.0 - std::pow(options.beta1, t)),
          1.0 / std::sqrt(1.0 - std::pow(options.beta2, t))};
}

/// Check the options and that all tensors of a parameter fit each other. Throw Error.
void check_sgd(std::span<const SgdParameter> parameters, const SgdOptions& options);
void check_adam(std::span<const AdamParameter> parameters, const AdamOptions& options);
void check_unscale(std::span<const Tensor> gradients, double factor, const Tensor& overflow);

}  // namespace cinnabar
