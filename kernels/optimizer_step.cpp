#include "kernels/optimizer_step.hpp"

namespace cinnabar {

namespace {

constexpr const char* kOp = "optimizer_step";

void check_tensor(const Tensor& value, const Tensor& other, const char* name) {
  CINNABAR_CHECK(other.defined(), kOp, name, " of ", value, " is undefined");
  require_same_shape(kOp, value, other);
  require_dtype(kOp, other, value.dtype());
  require_same_device(kOp, value, other);
}

/// A number an update can start from: finite and at least 0.
void check_number(double number, const char* name) {
  CINNABAR_CHECK(std::isfinite(number) && number >= 0.0, kOp, name, ' ', number, " must be at least 0");
}

}  // namespace

void check_sgd(std::span<const SgdParameter> parameters, const SgdOptions& options) {
  check_number(options.learning_rate, "learning rate");
  check_number(options.momentum, "momentum");
  check_number(options.weight_decay, "weight decay");
  check_number(options.dampening, "dampening");
  CINNABAR_CHECK(!options.nesterov || (options.momentum > 0.0 && options.dampening == 0.0), kOp,
                 "nesterov needs momentum and no dampening");
  for (const SgdParameter& p : parameters) {
    require_floating(kOp, p.value);
    check_tensor(p.value, p.grad, "gradient");
    CINNABAR_CHECK(p.momentum.defined() == (options.momentum != 0.0), kOp,
                   "a momentum buffer is needed exactly where there is momentum");
    if (p.momentum.defined()) check_tensor(p.value, p.momentum, "momentum");
    require_same_device(kOp, parameters[0].value, p.value);
  }
}

void check_adam(std::span<const AdamParameter> parameters, const AdamOptions& options) {
  check_number(options.learning_rate, "learning rate");
  check_number(options.weight_decay, "weight decay");
  check_number(options.epsilon, "epsilon");
  CINNABAR_CHECK(options.beta1 >= 0.0 && options.beta1 < 1.0 && options.beta2 >= 0.0 && options.beta2 < 1.0,
                 kOp, "betas ", options.beta1, " and ", options.beta2, " must be in [0, 1)");
  for (const AdamParameter& p : parameters) {
    require_floating(kOp, p.value);
    check_tensor(p.value, p.grad, "gradient");
    check_tensor(p.value, p.first_moment, "first moment");
    check_tensor(p.value, p.second_moment, "second moment");
    CINNABAR_CHECK(p.largest.defined() == options.amsgrad, kOp,
                   "the largest second moment is needed exactly with amsgrad");
    if (p.largest.defined()) check_tensor(p.value, p.largest, "largest second moment");
    CINNABAR_CHECK(p.step >= 1, kOp, "step ", p.step, " must be at least 1");
    require_same_device(kOp, parameters[0].value, p.value);
  }
}

void check_unscale(std::span<const Tensor> gradients, double factor, const Tensor& overflow) {
  CINNABAR_CHECK(std::isfinite(factor), kOp, "factor ", factor, " is not finite");
  CINNABAR_CHECK(overflow.defined() && overflow.numel() == 1, kOp, "the overflow needs one element");
  require_dtype(kOp, overflow, DType::i32);
  for (const Tensor& gradient : gradients) {
    require_floating(kOp, gradient);
    require_dtype(kOp, gradient, gradients[0].dtype());
    require_same_device(kOp, gradient, overflow);
  }
}

}  // namespace cinnabar
