#pragma once

#include "autograd/pool3d.hpp"
#include "layers/module.hpp"

namespace cinnabar {

/// Pooling of [N, C, D, H, W]; conventions of kernels/pool3d.hpp.
class MaxPool3d : public Layer {
 public:
  explicit MaxPool3d(const PoolOptions& options = {}) : options_(options) {}
  Variable forward(const Variable& x) override { return max_pool3d(x, options_); }

 private:
  PoolOptions options_;
};

class AveragePool3d : public Layer {
 public:
  explicit AveragePool3d(const PoolOptions& options = {}) : options_(options) {}
  Variable forward(const Variable& x) override { return average_pool3d(x, options_); }

 private:
  PoolOptions options_;
};

}  // namespace cinnabar
