#include "kernels/norm.hpp"

#include <cmath>

namespace cinnabar {

namespace {

constexpr const char* kOp = "norm";

/// A defined tensor beside x: dtype and device fit and it has `count` elements.
void check_beside(const Tensor& x, const Tensor& other, DType dtype, std::int64_t count, const char* name) {
  CINNABAR_CHECK(other.defined() && other.numel() == count, kOp, name, " of ", x, " must have ", count,
                 " elements");
  require_dtype(kOp, other, dtype);
  require_same_device(kOp, x, other);
}

void check_shape(const Tensor& x, const NormShape& shape) {
  require_floating(kOp, x);
  CINNABAR_CHECK(shape.images >= 0 && shape.channels >= 1 && shape.voxels >= 1 &&
                     shape.images * shape.channels * shape.voxels == x.numel(),
                 kOp, x, " is not ", shape.images, " images of ", shape.channels, " channels of ",
                 shape.voxels, " voxels");
  CINNABAR_CHECK(shape.groups >= 1 && shape.channels % shape.groups == 0 &&
                     (!shape.across_images || shape.groups == shape.channels),
                 kOp, shape.groups, " groups do not fit ", shape.channels, " channels");
}

}  // namespace

void check_norm_statistics(const Tensor& x, const NormShape& shape, const Tensor& mean,
                           const Tensor& variance) {
  check_shape(x, shape);
  check_beside(x, mean, DType::f64, shape.sets(), "mean");
  check_beside(x, variance, DType::f64, shape.sets(), "variance");
}

void check_norm_update(const Tensor& mean, const Tensor& variance, double momentum, const NormShape& shape,
                       const Tensor& running_mean, const Tensor& running_variance, const Tensor& batches) {
  CINNABAR_CHECK(shape.across_images && momentum >= 0.0 && momentum <= 1.0, kOp,
                 "running statistics need batch norm and a momentum in [0, 1], got ", momentum);
  require_floating(kOp, running_mean);
  check_beside(running_mean, running_mean, running_mean.dtype(), shape.channels, "running mean");
  check_beside(running_mean, running_variance, running_mean.dtype(), shape.channels, "running variance");
  check_beside(running_mean, mean, DType::f64, shape.channels, "mean");
  check_beside(running_mean, variance, DType::f64, shape.channels, "variance");
  if (batches.defined()) check_beside(running_mean, batches, DType::i64, 1, "number of batches");
}

void check_norm_forward(const Tensor& x, const Tensor& mean, const Tensor& variance, const Tensor& weight,
                        const Tensor& bias, double epsilon, const NormShape& shape, const Tensor& y) {
  check_shape(x, shape);
  const DType given = mean.defined() && mean.dtype() == x.dtype() ? x.dtype() : DType::f64;
  check_beside(x, mean, given, shape.sets(), "mean");
  check_beside(x, variance, given, shape.sets(), "variance");
  CINNABAR_CHECK(std::isfinite(epsilon) && epsilon >= 0.0, kOp, "epsilon ", epsilon, " must be at least 0");
  if (weight.defined()) check_beside(x, weight, x.dtype(), shape.channels, "weight");
  if (bias.defined()) check_beside(x, bias, x.dtype(), shape.channels, "bias");
  check_beside(x, y, x.dtype(), x.numel(), "output");
}

void check_norm_backward(const Tensor& grad_y, const Tensor& x, const Tensor& mean, const Tensor& variance,
                         const Tensor& weight, double epsilon, const NormShape& shape, const Tensor& grad_x,
                         const Tensor& grad_weight, const Tensor& grad_bias) {
  check_norm_forward(x, mean, variance, weight, {}, epsilon, shape, grad_y);
  if (grad_x.defined()) check_beside(x, grad_x, x.dtype(), x.numel(), "gradient");
  CINNABAR_CHECK(grad_weight.defined() == grad_bias.defined(), kOp,
                 "the gradients of weight and bias come together");
  if (!grad_weight.defined()) return;
  check_beside(x, grad_weight, x.dtype(), shape.channels, "gradient of the weight");
  check_beside(x, grad_bias, x.dtype(), shape.channels, "gradient of the bias");
}

}  // namespace cinnabar
