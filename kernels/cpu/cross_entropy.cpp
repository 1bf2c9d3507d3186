#include "kernels/cross_entropy.hpp"

#include <algorithm>

#include "kernels/parallel.hpp"

namespace cinnabar::cpu {

namespace {

constexpr const char* kOp = "cross_entropy";
constexpr std::int64_t kGrain = 1 << 14;  // logits a task

std::int64_t positions_per_task(const Tensor& logits) {
  return std::max<std::int64_t>(1, kGrain / logits.shape(1));
}

void check_labels(const Tensor& logits, const Tensor& labels, const CrossEntropyOptions& options) {
  const std::int64_t* const label = labels.data<std::int64_t>();
  const std::int64_t classes = logits.shape(1);
  for (std::int64_t i = 0; i < labels.numel(); ++i) {
    CINNABAR_CHECK((label[i] >= 0 && label[i] < classes) || label[i] == options.ignore_index, kOp, "label ",
                   label[i], " is not one of ", classes, " classes");
  }
}

void forward(const Tensor& logits, const Tensor& labels, const Tensor& class_weight,
             const CrossEntropyOptions& options, Tensor& losses, Tensor& weights) {
  check_cross_entropy(logits, labels, class_weight, options);
  check_cross_entropy_values(logits, labels, losses);
  check_cross_entropy_values(logits, labels, weights);
  check_labels(logits, labels, options);
  const std::int64_t* const label = labels.data<std::int64_t>();
  dispatch_floating(kOp, logits.dtype(), [&](auto element) {
    using T = decltype(element);
    const auto call = cross_entropy_call<T>(logits, labels, class_weight, options);
    const T* const x = logits.data<T>();
    T* const loss = losses.data<T>();
    T* const weight = weights.data<T>();
    parallel_for(call.positions, positions_per_task(logits), [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        const bool ignored = label[i] == call.ignored;
        loss[i] = ignored ? T(0) : call.loss(x + call.offset(i), label[i]);
        weight[i] = ignored ? T(0) : call.weight_of(label[i]);
      }
    });
  });
}

void backward(const Tensor& grad_losses, const Tensor& logits, const Tensor& labels,
              const Tensor& class_weight, const CrossEntropyOptions& options, Tensor& grad_logits) {
  check_cross_entropy(logits, labels, class_weight, options);
  check_cross_entropy_values(logits, labels, grad_losses);
  require_same_shape(kOp, logits, grad_logits);
  check_labels(logits, labels, options);
  const std::int64_t* const label = labels.data<std::int64_t>();
  dispatch_floating(kOp, logits.dtype(), [&](auto element) {
    using T = decltype(element);
    const auto call = cross_entropy_call<T>(logits, labels, class_weight, options);
    const T* const x = logits.data<T>();
    const T* const grad = grad_losses.data<T>();
    T* const out = grad_logits.data<T>();
    parallel_for(call.positions, positions_per_task(logits), [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        const std::int64_t at = call.offset(i);
        if (label[i] == call.ignored) {
          for (std::int64_t c = 0; c < call.classes; ++c) out[at + c * call.space] = T(0);
        } else {
          call.gradient(x + at, label[i], grad[i], out + at);
        }
      }
    });
  });
}

}  // namespace

extern const CrossEntropy cross_entropy;
const CrossEntropy cross_entropy{forward, backward};

}  // namespace cinnabar::cpu
