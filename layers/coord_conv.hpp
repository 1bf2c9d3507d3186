#pragma once

#include "layers/conv3d.hpp"

namespace cinnabar {

struct CoordConvOptions {
  int axes = 3;              ///< 3: channels x, y, z. 2: x, y, for images [N, C, 1, H, W]
  bool with_radius = false;  ///< one more channel, the distance from the centre
  bool with_bias = true;
};

/// The channels of coordinates for extents (D, H, W): f32 [1, axes (+ 1), D, H, W] on the CPU, x, y(, z) and
/// the radius sqrt(x^2 + y^2 (+ z^2)). Each runs from -1 at the first to 1 at the last voxel along its own
/// axis, W, H or D, and is 0 on an axis of one voxel.
Tensor coordinate_channels(const Shape& extents, const CoordConvOptions& options = {});

/// Convolution of [N, C, D, H, W] that also sees where it is: coordinate channels follow the input's (Liu et
/// al., "An intriguing failing of convolutional neural networks and the CoordConv solution", NeurIPS 2018).
/// The child "conv" has weight [out, in + channels of coordinates, kernel] and bias [out].
class CoordConvLayer : public EpilogueLayer {
 public:
  CoordConvLayer(std::int64_t in, std::int64_t out, const ConvWindow& window, Generator& generator,
                 const CoordConvOptions& options = {});
  Variable forward_and(const Variable& x, const JoinEpilogue& join) override;

 private:
  const CoordConvOptions options_;
  Conv3dLayer conv_;
  Tensor coordinates_;  ///< of the last input's extents, dtype and device
};

}  // namespace cinnabar
