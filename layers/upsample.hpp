#pragma once

#include <utility>
#include <vector>

#include "autograd/upsample.hpp"
#include "layers/module.hpp"

namespace cinnabar {

/// Resizes [N, C, H, W] or [N, C, D, H, W] by one factor per spatial axis; conventions of
/// autograd/upsample.hpp.
class UpsampleLayer : public Layer {
 public:
  explicit UpsampleLayer(std::vector<double> factors, Interpolation interpolation = Interpolation::nearest,
                         bool align_corners = false)
      : factors_(std::move(factors)), interpolation_(interpolation), align_corners_(align_corners) {}
  Variable forward(const Variable& x) override {
    return upsample_by(x, factors_, interpolation_, align_corners_);
  }

 private:
  std::vector<double> factors_;
  Interpolation interpolation_;
  bool align_corners_;
};

}  // namespace cinnabar
