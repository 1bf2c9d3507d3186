#pragma once

#include "layers/module.hpp"

namespace cinnabar {

struct NormOptions {
  double epsilon = 1e-5;
  bool affine = true;     ///< learn weight and bias, which start at 1 and 0
  double momentum = 0.1;  ///< batch norm: share of the batch in the running statistics
};

/// Batch norm of [N, C, ...]: statistics of the batch in training, the running ones in evaluation. Saved
/// under PyTorch's names, num_batches_tracked included.
class BatchNorm : public Layer {
 public:
  explicit BatchNorm(std::int64_t channels, const NormOptions& options = {});
  Variable forward(const Variable& x) override;

  Variable weight, bias, running_mean, running_var, num_batches_tracked;

 private:
  NormOptions options_;
};

/// Group norm of [N, C, ...]; as many groups as channels make it instance norm.
class GroupNorm : public Layer {
 public:
  GroupNorm(std::int64_t groups, std::int64_t channels, const NormOptions& options = {});
  Variable forward(const Variable& x) override;

  Variable weight, bias;

 private:
  std::int64_t groups_;
  NormOptions options_;
};

/// Instance norm of [N, C, ...]; without weight and bias unless asked for, as in PyTorch.
class InstanceNorm : public Layer {
 public:
  explicit InstanceNorm(std::int64_t channels, const NormOptions& options = {1e-5, false, 0.1});
  Variable forward(const Variable& x) override;

  Variable weight, bias;

 private:
  NormOptions options_;
};

/// Layer norm of the innermost axes, whose extents are `normalised`.
class LayerNorm : public Layer {
 public:
  explicit LayerNorm(const Shape& normalised, const NormOptions& options = {});
  Variable forward(const Variable& x) override;

  Variable weight, bias;

 private:
  Shape normalised_;
  NormOptions options_;
};

}  // namespace cinnabar
