#pragma once

#include <array>

#include "kernels/conv3d.hpp"
#include "kernels/op.hpp"

namespace cinnabar {

/// Per axis in the order D, H, W; 2-D images take the last two.
struct DeformConvOptions {
  std::array<std::int64_t, 3> stride{1, 1, 1};
  std::array<std::int64_t, 3> padding{0, 0, 0};
  std::array<std::int64_t, 3> dilation{1, 1, 1};
  std::int64_t groups = 1;
  /// How much memory columns may take at one time, as far as one block of positions allows.
  std::int64_t workspace_bytes = std::int64_t{256} << 20;
};

/// Deformable convolution (Dai et al., "Deformable convolutional networks", ICCV 2017, eq. 2 and 3; the mask:
/// Zhu et al., "Deformable ConvNets v2", CVPR 2019, eq. 1), with the conventions of torchvision's
/// deform_conv2d:
///
///   output[n, o, p] = epilogue(sum over c, k of weight[o, c, k] column[n, c, k, p])
///   column[n, c, k, p] = mask[n, g, k, p] input[n, c, p stride - padding + k dilation + offset[n, g, k, p]]
///
/// Shapes in 3-D: input [N, C, D, H, W], weight [O, C / groups, kD, kH, kW], output [N, O, D', H', W'] as in
/// kernels/conv3d.hpp; with K = kD kH kW taps and G offset groups, offset [N, 3 G K, D', H', W'] whose
/// channel 3 (g K + k) + i is the offset in voxels along z, y, x (i = 0, 1, 2), and mask [N, G K, D', H', W']
/// or undefined, which means 1. 2-D: the same without the axis D, and offset [N, 2 G K, H', W'] along y, x. G
/// follows from the offset's channels and divides C: input channels of the g-th of G equal parts move by
/// offsets g.
///
/// Between voxels linear, zero outside: every corner outside counts as zero. A corner of weight zero is not
/// read, so at whole offsets this is the convolution that those voxels give. At a kink the slope is that of
/// the cell above. A NaN offset gives a NaN column and NaN gradients of offset and mask, and adds nothing to
/// the input's.
///
/// f32 and f64 on the CPU, f32 on CUDA. All functions assign and are deterministic: the same bits for any
/// number of threads.
struct DeformConv {
  void (*forward)(const Tensor& input, const Tensor& offset, const Tensor& mask, const Tensor& weight,
                  const Epilogue& epilogue, const DeformConvOptions& options, Tensor& output);
  void (*backward_weight)(const Tensor& grad_output, const Tensor& input, const Tensor& offset,
                          const Tensor& mask, const DeformConvOptions& options, Tensor& grad_weight);
  /// The gradients of what columns are sampled from and by; those that are undefined are not wanted. The CPU
  /// adds to the input's in the order of positions. CUDA adds in 64-bit fixed point, whose power-of-two unit
  /// follows from max |grad_output|, max |weight|, max |mask| and how many terms can meet: a NaN or infinity
  /// in one of them makes the whole grad_input NaN there.
  void (*backward_sampling)(const Tensor& grad_output, const Tensor& input, const Tensor& offset,
                            const Tensor& mask, const Tensor& weight, const DeformConvOptions& options,
                            Tensor& grad_input, Tensor& grad_offset, Tensor& grad_mask);
};

CINNABAR_OP(DeformConv, deform_conv);

/// A checked deformable convolution; channels are those of all groups, axes are D, H, W, 2-D has depth 1.
struct DeformConvShape {
  int dims = 0;  ///< 2 or 3
  std::int64_t batch = 0;
  std::int64_t groups = 1;
  std::int64_t offset_groups = 1;
  std::int64_t in_channels = 0;
  std::int64_t out_channels = 0;
  Conv3dAxis axis[3];

  CINNABAR_HD std::int64_t in_volume() const { return std::int64_t{axis[0].in} * axis[1].in * axis[2].in; }
  CINNABAR_HD std::int64_t out_volume() const {
    return std::int64_t{axis[0].out} * axis[1].out * axis[2].out;
  }
  CINNABAR_HD std::int64_t taps() const {
    return std::int64_t{axis[0].kernel} * axis[1].kernel * axis[2].kernel;
  }
  /// Rows of the columns of one image.
  CINNABAR_HD std::int64_t rows() const { return in_channels * taps(); }
  /// Products summed into one output: the row length of the weights as a matrix.
  std::int64_t depth() const { return rows() / groups; }
};

/// Checks all tensors (or their gradients) against each other. Throws Error.
DeformConvShape deform_conv_shape(const Tensor& input, const Tensor& offset, const Tensor& mask,
                                  const Tensor& weight, const Tensor& output,
                                  const DeformConvOptions& options);
/// The same, and that the gradients that are wanted have their tensors' shapes.
DeformConvShape deform_conv_backward_shape(const Tensor& grad_output, const Tensor& input,
                                           const Tensor& offset, const Tensor& mask, const Tensor& weight,
                                           const DeformConvOptions& options, const Tensor& grad_input,
                                           const Tensor& grad_offset, const Tensor& grad_mask);

/// The output's shape. Throws Error where the kernel does not fit into the padded input.
Shape deform_conv_output_shape(const Shape& input, const Shape& weight, const DeformConvOptions& options);

}  // namespace cinnabar
