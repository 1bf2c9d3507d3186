#pragma once

#include "autograd/conv3d.hpp"
#include "layers/initializer.hpp"
#include "layers/module.hpp"

namespace cinnabar {

/// Taps of a convolution and how they move; axes in the order D, H, W.
struct ConvWindow {
  std::array<std::int64_t, 3> kernel{3, 3, 3};
  Conv3dOptions options = {};
  std::array<std::int64_t, 3> output_padding{0, 0, 0};  ///< transposed convolutions only
};

/// kernel^3 taps, or kernel^2 taps for 2-D images, which have depth 1; padding and stride alike on all those
/// axes.
ConvWindow conv_cubes(std::int64_t kernel, std::int64_t padding = 0, std::int64_t stride = 1);
ConvWindow conv_squares(std::int64_t kernel, std::int64_t padding = 0, std::int64_t stride = 1);

/// Convolution of [N, C, D, H, W]: weight [out, in / groups, kernel], bias [out]. Both start uniform in
/// +-1 / sqrt(in / groups taps), as in PyTorch. Conventions of kernels/conv3d.hpp. In a Sequential,
/// activation and dropout behind it are computed in the same pass.
class Conv3dLayer : public EpilogueLayer {
 public:
  Conv3dLayer(std::int64_t in, std::int64_t out, const ConvWindow& window, Generator& generator,
              bool with_bias = true);
  Variable forward_and(const Variable& x, const JoinEpilogue& join) override;

  Variable weight;
  Variable bias;  ///< undefined without bias

 private:
  Conv3dOptions options_;
};

/// The transposed convolution: weight [in, out / groups, kernel]; starts uniform in
/// +-1 / sqrt(out / groups taps), as in PyTorch.
class ConvTranspose3dLayer : public EpilogueLayer {
 public:
  ConvTranspose3dLayer(std::int64_t in, std::int64_t out, const ConvWindow& window, Generator& generator,
                       bool with_bias = true);
  Variable forward_and(const Variable& x, const JoinEpilogue& join) override;

  Variable weight;
  Variable bias;  ///< undefined without bias

 private:
  ConvWindow window_;
};

}  // namespace cinnabar
