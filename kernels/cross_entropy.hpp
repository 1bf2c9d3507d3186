#pragma once

#include <cmath>
#include <cstdint>

#include "engine/host_device.hpp"
#include "kernels/op.hpp"

namespace cinnabar {

struct CrossEntropyOptions {
  double label_smoothing = 0.0;      ///< share of the label that is spread over all classes, in [0, 1]
  std::int64_t ignore_index = -100;  ///< positions with this label count nothing
};

/// Cross entropy between logits and class labels, with PyTorch's conventions.
///
/// Shapes: logits [N, C, ...], labels i64 [N, ...], class_weight [C] or undefined (ones), losses and weights
/// of the labels' shape and the logits' dtype. At a position with label y, with p = softmax over the classes
/// and s the label smoothing:
///   loss = -(1 - s) w_y log p_y - s / C sum_c w_c log p_c,   weight = w_y
/// and both 0 where the label is ignored. Any other label outside 0..C-1 throws on the CPU. On CUDA, where
/// nobody waits for the device, the loss and the weight at its position and the gradients of its logits
/// become NaN, so a mean or a sum shows it. f32 and f64 on the CPU, f32 on CUDA. Kernels assign their
/// outputs; every position is on its own: deterministic.
struct CrossEntropy {
  void (*forward)(const Tensor& logits, const Tensor& labels, const Tensor& class_weight,
                  const CrossEntropyOptions& options, Tensor& losses, Tensor& weights);
  /// grad_losses [N, ...] to grad_logits.
  void (*backward)(const Tensor& grad_losses, const Tensor& logits, const Tensor& labels,
                   const Tensor& class_weight, const CrossEntropyOptions& options, Tensor& grad_logits);
};

CINNABAR_OP(CrossEntropy, cross_entropy);

/// log sum over c of exp(x_c) in two parts: added up, they would lose what log_sum says beside large logits.
template <class T>
struct LogSumExp {
  T largest;  ///< of the x_c
  T log_sum;  ///< log sum of exp(x_c - largest)

  /// -log softmax of logit x.
  CINNABAR_HD T surprise(T x) const { return (largest - x) + log_sum; }
};

/// Extents of one call, and what both devices need of the options.
template <class T>
struct CrossEntropyCall {
  std::int64_t positions;  ///< batch times space
  std::int64_t classes;
  std::int64_t space;
  std::int64_t ignored;
  T keep;           ///< 1 - s
  T spread;         ///< s / C
  const T* weight;  ///< or null

  CINNABAR_HD T weight_of(std::int64_t c) const { return weight == nullptr ? T(1) : weight[c]; }
  /// First logit of a position; the classes follow in steps of `space`.
  CINNABAR_HD std::int64_t offset(std::int64_t position) const {
    const std::int64_t image = position / space;
    return image * classes * space + position - image * space;
  }

  /// The loss of logits x[0], x[space], ... with that log sum exp.
  CINNABAR_HD T loss(const T* x, std::int64_t label, const LogSumExp<T>& total) const {
    T loss = keep * weight_of(label) * total.surprise(x[label * space]);
    if (spread != T(0)) {
      T smooth = T(0);
      for (std::int64_t c = 0; c < classes; ++c) smooth += weight_of(c) * total.surprise(x[c * space]);
      loss += spread * smooth;
    }
    return loss;
  }

  /// The gradient of the loss in logit c is softmax_share(label) p_c - target_share(c, label).
  CINNABAR_HD T softmax_share(std::int64_t label) const {
    T sum = keep * weight_of(label);
    if (spread != T(0)) {
      for (std::int64_t c = 0; c < classes; ++c) sum += spread * weight_of(c);
    }
    return sum;
  }
  CINNABAR_HD T target_share(std::int64_t c, std::int64_t label) const {
    const T smooth = spread == T(0) ? T(0) : spread * weight_of(c);
    return c == label ? smooth + keep * weight_of(c) : smooth;
  }
};

/// Checks all tensors and options. Throws Error.
void check_cross_entropy(const Tensor& logits, const Tensor& labels, const Tensor& class_weight,
                         const CrossEntropyOptions& options);
/// Checks a tensor with one value per position, and a gradient of the logits.
void check_cross_entropy_values(const Tensor& logits, const Tensor& labels, const Tensor& values);
void check_cross_entropy_gradient(const Tensor& logits, const Tensor& grad_logits);

/// The call after these checks.
template <class T>
CrossEntropyCall<T> cross_entropy_call(const Tensor& logits, const Tensor& labels, const Tensor& class_weight,
                                       const CrossEntropyOptions& options) {
  const std::int64_t classes = logits.shape(1);
  const std::int64_t space = labels.numel() == 0 ? 1 : labels.numel() / labels.shape(0);
  return {labels.numel(),
          classes,
          space,
          options.ignore_index,
          static_cast<T>(1.0 - options.label_smoothing),
          static_cast<T>(options.label_smoothing / static_cast<double>(classes)),
          class_weight.defined() ? class_weight.data<T>() : nullptr};
}

}  // namespace cinnabar
