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

/// [outer, inner / groups, kernel], as Conv3dLayer has it with outer = out and ConvTranspose3dLayer with
/// outer = in. Throws Error where the groups do not divide both.
Shape convolution_weight_shape(const char* op, std::int64_t outer, std::int64_t inner,
                               const ConvWindow& window);

/// The weight and bias of a convolution, both uniform in +-1 / sqrt(weight's fan) at the start, as in
/// PyTorch.
class ConvolutionLayer : public EpilogueLayer {
 public:
  Variable weight;
  Variable bias;  ///< undefined without bias

 protected:
  ConvolutionLayer(const Shape& shape, std::int64_t out, const ConvWindow& window, Generator& generator,
                   bool with_bias);
  const ConvWindow window_;
};

/// Convolution of [N, C, D, H, W]: weight [out, in / groups, kernel], bias [out]; the fan is in / groups
/// taps. Conventions of kernels/conv3d.hpp. In a Sequential, activation and dropout behind it are computed in
/// the same pass.
class Conv3dLayer : public ConvolutionLayer {
 public:
  Conv3dLayer(std::int64_t in, std::int64_t out, const ConvWindow& window, Generator& generator,
              bool with_bias = true);
  Variable forward_and(const Variable& x, const JoinEpilogue& join) override;
};

/// The transposed convolution: weight [in, out / groups, kernel]; the fan is out / groups taps.
class ConvTranspose3dLayer : public ConvolutionLayer {
 public:
  ConvTranspose3dLayer(std::int64_t in, std::int64_t out, const ConvWindow& window, Generator& generator,
                       bool with_bias = true);
  Variable forward_and(const Variable& x, const JoinEpilogue& join) override;
};

}  // namespace cinnabar
