#include "kernels/cross_entropy.hpp"

namespace cinnabar {

namespace {
constexpr const char* kOp = "cross_entropy";
}

void check_cross_entropy(const Tensor& logits, const Tensor& labels, const Tensor& class_weight,
                         const CrossEntropyOptions& options) {
  require_floating(kOp, logits);
  CINNABAR_CHECK(logits.rank() >= 2 && logits.shape(1) >= 1, kOp, "logits must be [N, C, ...], got ", logits);
  CINNABAR_CHECK(labels.shape() == logits.shape().without(1), kOp, "labels ", labels, " do not fit logits ",
                 logits);
  require_dtype(kOp, labels, DType::i64);
  require_same_device(kOp, logits, labels);
  CINNABAR_CHECK(options.label_smoothing >= 0.0 && options.label_smoothing <= 1.0, kOp, "label smoothing ",
                 options.label_smoothing, " is not in [0, 1]");
  if (!class_weight.defined()) return;
  CINNABAR_CHECK(class_weight.shape() == Shape{logits.shape(1)}, kOp, "class weights ", class_weight,
                 " do not fit logits ", logits);
  require_dtype(kOp, class_weight, logits.dtype());
  require_same_device(kOp, logits, class_weight);
}

void check_cross_entropy_values(const Tensor& logits, const Tensor& labels, const Tensor& values) {
  require_same_shape(kOp, labels, values);
  require_dtype(kOp, values, logits.dtype());
  require_same_device(kOp, logits, values);
}

void check_cross_entropy_gradient(const Tensor& logits, const Tensor& grad_logits) {
  require_same_shape(kOp, logits, grad_logits);
  require_dtype(kOp, grad_logits, logits.dtype());
  require_same_device(kOp, logits, grad_logits);
}

}  // namespace cinnabar
