#pragma once

#include "autograd/variable.hpp"
#include "kernels/norm.hpp"

namespace cinnabar {

/// Normalisation with PyTorch's conventions; kernels/norm.hpp has the formulas. weight and bias come together
/// or are both undefined. Axis 1 holds the channels.

/// Running statistics of batch norm; they are changed in training.
struct RunningStatistics {
  Tensor mean;      ///< [channels], the dtype of the images
  Tensor variance;  ///< [channels]
  Tensor batches;   ///< i64 [], how many batches they have seen; may be undefined
};
/// Training: with the statistics of the batch, which also move the running ones where those are defined.
/// Evaluation: with the running ones.
Variable batch_norm(const Variable& x, const Variable& weight, const Variable& bias,
                    RunningStatistics& running, bool training, double momentum = 0.1, double epsilon = 1e-5);

/// One mean and variance per channel of every image.
Variable instance_norm(const Variable& x, const Variable& weight = {}, const Variable& bias = {},
                       double epsilon = 1e-5);
/// One per group of neighbouring channels of every image.
Variable group_norm(const Variable& x, std::int64_t groups, const Variable& weight = {},
                    const Variable& bias = {}, double epsilon = 1e-5);
/// One for the innermost `axes` axes; weight and bias have their shape.
Variable layer_norm(const Variable& x, int axes, const Variable& weight = {}, const Variable& bias = {},
                    double epsilon = 1e-5);

}  // namespace cinnabar
