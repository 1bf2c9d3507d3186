#include "layers/norm.hpp"

#include "autograd/norm.hpp"

namespace cinnabar {

BatchNorm::BatchNorm(std::int64_t channels, const NormOptions& options) : options_(options) {
  CINNABAR_CHECK(channels >= 1, "batch_norm", channels, " channels");
  if (options.affine) {
    weight = add_parameter("weight", Tensor::full({channels}, 1.0));
    bias = add_parameter("bias", Tensor::zeros({channels}));
  }
  running_mean = add_buffer("running_mean", Tensor::zeros({channels}));
  running_var = add_buffer("running_var", Tensor::full({channels}, 1.0));
  num_batches_tracked = add_buffer("num_batches_tracked", Tensor::zeros({}, DType::i64));
}

Variable BatchNorm::forward(const Variable& x) {
  RunningStatistics running{running_mean.value(), running_var.value(), num_batches_tracked.value()};
  return batch_norm(x, weight, bias, running, training(), options_.momentum, options_.epsilon);
}

GroupNorm::GroupNorm(std::int64_t groups, std::int64_t channels, const NormOptions& options)
    : groups_(groups), options_(options) {
  CINNABAR_CHECK(groups >= 1 && channels % groups == 0, "group_norm", groups, " groups of ", channels,
                 " channels");
  if (!options.affine) return;
  weight = add_parameter("weight", Tensor::full({channels}, 1.0));
  bias = add_parameter("bias", Tensor::zeros({channels}));
}

Variable GroupNorm::forward(const Variable& x) {
  return group_norm(x, groups_, weight, bias, options_.epsilon);
}

InstanceNorm::InstanceNorm(std::int64_t channels, const NormOptions& options) : options_(options) {
  CINNABAR_CHECK(channels >= 1, "instance_norm", channels, " channels");
  if (!options.affine) return;
  weight = add_parameter("weight", Tensor::full({channels}, 1.0));
  bias = add_parameter("bias", Tensor::zeros({channels}));
}

Variable InstanceNorm::forward(const Variable& x) {
  return instance_norm(x, weight, bias, options_.epsilon);
}

LayerNorm::LayerNorm(const Shape& normalised, const NormOptions& options)
    : normalised_(normalised), options_(options) {
  CINNABAR_CHECK(normalised.rank() >= 1 && normalised.numel() >= 1, "layer_norm", "cannot normalise ",
                 normalised);
  if (!options.affine) return;
  weight = add_parameter("weight", Tensor::full(normalised, 1.0));
  bias = add_parameter("bias", Tensor::zeros(normalised));
}

Variable LayerNorm::forward(const Variable& x) {
  const int axes = normalised_.rank();
  bool fits = x.value().rank() >= axes;
  for (int axis = 1; fits && axis <= axes; ++axis) fits = x.shape()[-axis] == normalised_[-axis];
  CINNABAR_CHECK(fits, "layer_norm", x.value(), " does not end with ", normalised_);
  return layer_norm(x, axes, weight, bias, options_.epsilon);
}

}  // namespace cinnabar
