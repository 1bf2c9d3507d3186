#include "autograd/norm.hpp"

namespace cinnabar {

namespace {

constexpr const char* kOp = "norm";

NormShape shape_of(const Tensor& x, std::int64_t groups, bool across_images) {
  CINNABAR_CHECK(x.rank() >= 2 && x.numel() > 0, kOp, "needs [N, C, ...] with at least one element, got ", x);
  const std::int64_t images = x.shape(0);
  const std::int64_t channels = x.shape(1);
  return {images, channels, x.numel() / (images * channels), groups, across_images};
}

Tensor value_of(const Variable& x) {
  return x.defined() ? x.value() : Tensor{};
}

/// y with the given statistics; they depend on x unless constant.
Variable normalise(const Variable& x, const Variable& weight, const Variable& bias, const Tensor& mean,
                   const Tensor& variance, bool constant, double epsilon, const NormShape& shape) {
  CINNABAR_CHECK(weight.defined() == bias.defined(), kOp, "weight and bias come together");
  const Tensor input = x.value();
  const Tensor scale = value_of(weight);
  const Norm& kernels = norm_on(input.device());
  Tensor output = Tensor::empty_like(input);
  kernels.forward(input, mean, variance, scale, value_of(bias), epsilon, shape, output);
  std::vector<Variable> inputs{x};
  if (weight.defined()) inputs.insert(inputs.end(), {weight, bias});
  const bool needs_x = x.requires_grad();
  const bool needs_parameters = weight.requires_grad() || bias.requires_grad();
  return record_one(kOp, output, inputs, [=, &kernels](const Tensor& grad) {
    Tensor grad_x = needs_x ? Tensor::empty_like(input) : Tensor{};
    Tensor grad_weight = needs_parameters ? Tensor::empty_like(scale) : Tensor{};
    Tensor grad_bias = needs_parameters ? Tensor::empty_like(scale) : Tensor{};
    kernels.backward(grad, input, mean, variance, scale, epsilon, constant, shape, grad_x, grad_weight,
                     grad_bias);
    if (!scale.defined()) return std::vector<Tensor>{grad_x};
    return std::vector<Tensor>{grad_x, grad_weight, grad_bias};
  });
}

Variable normalise_by_own_statistics(const Variable& x, const Variable& weight, const Variable& bias,
                                     double epsilon, const NormShape& shape, RunningStatistics* running,
                                     double momentum) {
  const Tensor& input = x.value();
  const Norm& kernels = norm_on(input.device());
  Tensor mean = Tensor::empty({shape.sets()}, DType::f64, input.device());
  Tensor variance = Tensor::empty_like(mean);
  kernels.statistics(input, shape, mean, variance);
  if (running != nullptr && running->mean.defined()) {
    kernels.update_running(mean, variance, momentum, shape, running->mean, running->variance,
                           running->batches);
  }
  return normalise(x, weight, bias, mean, variance, false, epsilon, shape);
}

}  // namespace

Variable batch_norm(const Variable& x, const Variable& weight, const Variable& bias,
                    RunningStatistics& running, bool training, double momentum, double epsilon) {
  const NormShape shape = shape_of(x.value(), x.value().rank() >= 2 ? x.shape()[1] : 1, true);
  if (training) {
    CINNABAR_CHECK(shape.set_size() > 1, kOp, "batch norm needs more than one element a channel, got ",
                   x.value());
    return normalise_by_own_statistics(x, weight, bias, epsilon, shape, &running, momentum);
  }
  CINNABAR_CHECK(running.mean.defined() && running.variance.defined(), kOp,
                 "evaluation needs running statistics");
  // Copies, because training may go on before the gradient is taken.
  return normalise(x, weight, bias, running.mean.clone(), running.variance.clone(), true, epsilon, shape);
}

Variable group_norm(const Variable& x, std::int64_t groups, const Variable& weight, const Variable& bias,
                    double epsilon) {
  return normalise_by_own_statistics(x, weight, bias, epsilon, shape_of(x.value(), groups, false), nullptr,
                                     0.0);
}

Variable instance_norm(const Variable& x, const Variable& weight, const Variable& bias, double epsilon) {
  CINNABAR_CHECK(x.value().rank() >= 3, kOp, "instance norm needs [N, C, ...] with space, got ", x.value());
  return group_norm(x, x.shape()[1], weight, bias, epsilon);
}

Variable layer_norm(const Variable& x, int axes, const Variable& weight, const Variable& bias,
                    double epsilon) {
  const Tensor& input = x.value();
  CINNABAR_CHECK(axes >= 1 && axes <= input.rank() && input.numel() > 0, kOp, "cannot normalise ", axes,
                 " axes of ", input);
  std::int64_t elements = 1;
  Shape normalised;
  for (int axis = input.rank() - axes; axis < input.rank(); ++axis) {
    elements *= input.shape(axis);
    normalised = normalised.append(input.shape(axis));
  }
  CINNABAR_CHECK(!weight.defined() || weight.shape() == normalised, kOp, "weight ", weight.value(),
                 " does not fit the last axes of ", input);
  const NormShape shape{input.numel() / elements, elements, 1, 1, false};
  return normalise_by_own_statistics(x, weight, bias, epsilon, shape, nullptr, 0.0);
}

}  // namespace cinnabar
