#pragma once

#include <array>
#include <cstdint>

#include "engine/device.hpp"

namespace cinnabar::cuda::vendor {

enum class CudnnPass { forward, backward_input, backward_weight };

/// A 3-D cross-correlation in f32: input [batch, channels, in], output [batch, filters, out], weight
/// [filters, channels / groups, kernel], all contiguous; axes D, H, W.
struct CudnnConvolution {
  int batch, channels, filters, groups;
  std::array<int, 3> in, out, kernel, stride, padding, dilation;

  friend auto operator<=>(const CudnnConvolution&, const CudnnConvolution&) = default;
};

/// Whether this build has cuDNN.
bool has_cudnn();

/// Computes `result` (output, grad_input or grad_weight) from the two others, in the order of their listing
/// above: (input, weight), (grad_output, weight), (grad_output, input). Runs on the current stream of the
/// device in full fp32 by the fastest deterministic algorithm of those that fit into memory, measured once
/// per problem in a process. Throws on any error of cuDNN.
void run(CudnnPass pass, const CudnnConvolution& problem, const float* first, const float* second,
         float* result, Device device);

}  // namespace cinnabar::cuda::vendor
