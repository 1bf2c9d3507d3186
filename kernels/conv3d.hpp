#pragma once

#include <array>

#include "engine/host_device.hpp"
#include "kernels/epilogue.hpp"
#include "kernels/op.hpp"

namespace cinnabar {

/// How a convolution is computed (docs/kernels/conv3d.md).
enum class Conv3dBackend {
  by_rule,  ///< CPU: direct, fft (inputs of at most 32^3 voxels) or gemm, whichever a count of operations
            ///< from the shapes says is the fastest. CUDA: fft (of at most 48^3) or direct likewise in fp32,
            ///< else mma where it can. The same everywhere but on GPUs without mma
  automatic,  ///< what was fastest when this pass of this shape was first computed on this machine
              ///< (kernels/conv3d_choice.hpp). Backends round differently: bits then depend on that choice
  reference,  ///< CPU: plain loops, sums in f64
  gemm,       ///< CPU: blocks of columns and BLAS
  fft,        ///< whole-volume transforms; stride 1 and dilation 1 only
  direct,     ///< CPU: blocks of sums in registers, stride 1 and dilation 1 only. CUDA: tiled implicit matrix
              ///< products, any
  mma,        ///< CUDA: the same on tensor cores; not in fp32, and only where the GPU and the build have them
  cudnn,      ///< CUDA: NVIDIA's library, where the build has it
};

/// What the two operands of every product are rounded to, in forward, backward_input and backward_weight
/// alike. Tensors in memory, sums, and everything in the epilogue stay f32 whatever the precision. Rounding
/// is to nearest, ties to even; NaN stays NaN. What is beyond the largest number becomes infinite, and the
/// sums it enters infinite or NaN.
enum class Conv3dPrecision {
  fp32,  ///< as they are
  tf32,  ///< 8 bits of exponent, 10 of mantissa: relative error 2^-11, the range of f32
  fp16,  ///< IEEE binary16: relative error 2^-11, from 65520 on infinite, absolute error 2^-25 below 2^-14
  bf16,  ///< 8 bits of exponent, 7 of mantissa: relative error 2^-8, the range of f32
};

/// Per axis in the order D, H, W.
struct Conv3dOptions {
  std::array<std::int64_t, 3> stride{1, 1, 1};
  std::array<std::int64_t, 3> padding{0, 0, 0};
  std::array<std::int64_t, 3> dilation{1, 1, 1};
  std::int64_t groups = 1;
  Conv3dBackend backend = Conv3dBackend::by_rule;
  Conv3dPrecision precision = Conv3dPrecision::fp32;
};

/// 3-D cross-correlation with zeros beyond the borders, as PyTorch's conv3d:
///
///   output[n, o, p] = epilogue(sum over c, k of
///                              weight[o, c, k] input[n, c, p stride - padding + k dilation])
///
/// where the epilogue adds a bias and may activate and drop (kernels/epilogue.hpp), in the pass that writes.
/// Shapes: input [N, C, D, H, W], weight [O, C / groups, kD, kH, kW], output [N, O, D', H', W'] with
/// D' = (D + 2 padding - dilation (kD - 1) - 1) / stride + 1, rounded down. Output channels of group g read
/// input channels of group g only. Fewer output positions than that are allowed; they are the first ones (a
/// transposed convolution with much output padding needs it).
///
/// A transposed convolution is the same three functions with the roles exchanged: its forward is
/// backward_input, with its own epilogue; its gradients are forward and backward_weight.
///
/// f32 and f64 on the CPU, f32 on CUDA; rounded operands are for f32 alone. All functions assign. Every
/// backend is deterministic: the order of every sum follows from the shapes alone, whatever the number of
/// threads. By rule, and by every backend but cudnn, what an image becomes in forward and
/// backward_input has the same bits in any batch.
struct Conv3d {
  void (*forward)(const Tensor& input, const Tensor& weight, const Epilogue& epilogue,
                  const Conv3dOptions& options, Tensor& output);
  /// The transpose in the input, ended by an epilogue over the input's channels.
  void (*backward_input)(const Tensor& grad_output, const Tensor& weight, const Epilogue& epilogue,
                         const Conv3dOptions& options, Tensor& grad_input);
  void (*backward_weight)(const Tensor& grad_output, const Tensor& input, const Conv3dOptions& options,
                          Tensor& grad_weight);
};

CINNABAR_OP(Conv3d, conv3d);

/// One axis of a checked convolution. Every sum and product below fits in 32 bits.
struct Conv3dAxis {
  std::int32_t in = 1;
  std::int32_t out = 1;
  std::int32_t kernel = 1;
  std::int32_t stride = 1;
  std::int32_t padding = 0;
  std::int32_t dilation = 1;

  /// The input index that output `o` reads through tap `k`; outside [0, in) it reads a zero.
  CINNABAR_HD std::int32_t source(std::int32_t o, std::int32_t k) const {
    return o * stride - padding + k * dilation;
  }
};

/// A checked convolution; channels are those of one group, axes are D, H, W.
struct Conv3dShape {
  std::int64_t batch = 0;
  std::int64_t groups = 1;
  std::int64_t in_channels = 0;
  std::int64_t out_channels = 0;
  Conv3dAxis axis[3];

  std::int64_t in_volume() const { return std::int64_t{axis[0].in} * axis[1].in * axis[2].in; }
  std::int64_t out_volume() const { return std::int64_t{axis[0].out} * axis[1].out * axis[2].out; }
  std::int64_t taps() const { return std::int64_t{axis[0].kernel} * axis[1].kernel * axis[2].kernel; }
  /// Products summed into one output: the row length of the weights as a matrix.
  std::int64_t depth() const { return in_channels * taps(); }
};

/// Checks input, weight and output (or their gradients) against each other. Throws Error.
Conv3dShape conv3d_shape(const Tensor& input, const Tensor& weight, const Tensor& output,
                         const Conv3dOptions& options);

/// Whether a device can compute by a backend in this build, for shapes that suit it.
bool conv3d_has_backend(Device device, Conv3dBackend backend,
                        Conv3dPrecision precision = Conv3dPrecision::fp32);
/// Whether a backend suits a convolution: fft, and direct on the CPU, need stride 1 and dilation 1 on every
/// axis, the latter also less padding than the kernel's extent.
bool conv3d_is_eligible(Conv3dBackend backend, Device device, const Conv3dShape& shape);

/// The output's shape. Throws Error where the kernel does not fit into the padded input.
Shape conv3d_output_shape(const Shape& input, const Shape& weight, const Conv3dOptions& options);
/// The same for the transposed convolution: input [N, C, D, H, W], weight [C, O / groups, kD, kH, kW], output
/// [N, O, D', H', W'] with D' = (D - 1) stride - 2 padding + dilation (kD - 1) + output_padding + 1. The
/// output padding is below the stride or below the dilation.
Shape conv_transpose3d_output_shape(const Shape& input, const Shape& weight, const Conv3dOptions& options,
                                    const std::array<std::int64_t, 3>& output_padding);

}  // namespace cinnabar
