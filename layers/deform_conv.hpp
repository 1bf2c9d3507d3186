#pragma once

#include "autograd/deform_conv.hpp"
#include "layers/conv3d.hpp"

namespace cinnabar {

struct DeformConvLayerOptions {
  /// 3: taps move along z, y and x. 2: along y and x, for images [N, C, 1, H, W] and windows of depth 1.
  int axes = 3;
  std::int64_t offset_groups = 1;  ///< divides the input channels
  bool masked = true;              ///< a factor for each tap, version 2
  bool with_bias = true;
};

/// Deformable convolution of [N, C, D, H, W] whose offsets, and masks, a convolution with the same window
/// predicts from the same input (Dai et al., ICCV 2017, fig. 2; Zhu et al., CVPR 2019). That convolution
/// starts at zero, and a mask is twice the sigmoid of what it predicts, so that the layer starts as the
/// Conv3dLayer with the same weights. (Zhu et al. take the sigmoid alone, which starts at a half.)
///
/// Parameters: weight [out, in / groups, kernel] and bias [out] as Conv3dLayer's, and the child "offset"'s:
/// first the axes x taps x offset_groups channels of the offsets in the order of kernels/deform_conv.hpp,
/// then the taps x offset_groups of the masks. Of the window's options, backend and precision are the
/// predicting convolution's.
class DeformConvLayer : public ConvolutionLayer {
 public:
  DeformConvLayer(std::int64_t in, std::int64_t out, const ConvWindow& window, Generator& generator,
                  const DeformConvLayerOptions& options = {});
  Variable forward_and(const Variable& x, const JoinEpilogue& join) override;

 private:
  const DeformConvLayerOptions options_;
  const std::int64_t taps_;  ///< of all offset groups
  Conv3dLayer offset_;
};

}  // namespace cinnabar
