#pragma once

#include <cstdint>

#include "engine/tensor.hpp"

namespace cinnabar {

/// Argument checks shared by the losses between two images, kernels/similarity.hpp and kernels/lncc.hpp.

/// Checks that two images are floating and alike.
inline void check_image_pair(const char* op, const Tensor& warped, const Tensor& fixed) {
  require_floating(op, warped);
  require_same_shape(op, warped, fixed);
  require_dtype(op, fixed, warped.dtype());
  require_same_device(op, warped, fixed);
}

/// Elements from one batch entry or channel of a mask to the next; 0 where all share one.
struct MaskStrides {
  std::int64_t batch = 0;
  std::int64_t channel = 0;
};

/// Strides of a mask [N or 1, C or 1, ...] of images [N, C, ...] after checking it; zeros where it is
/// undefined.
inline MaskStrides mask_strides(const char* op, const char* name, const Tensor& mask, const Tensor& images) {
  MaskStrides strides;
  if (!mask.defined()) return strides;
  require_dtype(op, mask, images.dtype());
  require_same_device(op, images, mask);
  CINNABAR_CHECK(mask.rank() == images.rank(), op, name, ' ', mask, " does not fit images ", images);
  for (int axis = 0; axis < images.rank(); ++axis) {
    CINNABAR_CHECK(mask.shape(axis) == images.shape(axis) || (axis < 2 && mask.shape(axis) == 1), op, name,
                   ' ', mask, " does not fit images ", images);
  }
  const std::int64_t voxels = images.numel() / (images.shape(0) * images.shape(1));
  if (mask.shape(1) > 1) strides.channel = voxels;
  if (mask.shape(0) > 1) strides.batch = voxels * mask.shape(1);
  return strides;
}

/// Checks what a loss writes: f64 sums of a given shape and one element of the images' dtype.
inline void check_sums_and_loss(const char* op, const Tensor& images, const Tensor& sums,
                                const Shape& shape_of_sums, const Tensor& loss) {
  CINNABAR_CHECK(sums.shape() == shape_of_sums && sums.dtype() == DType::f64, op, "sums must be f64 ",
                 shape_of_sums, ", got ", sums);
  require_same_device(op, images, sums);
  CINNABAR_CHECK(loss.numel() == 1 && loss.dtype() == images.dtype(), op, "loss must be one ", images.dtype(),
                 ", got ", loss);
  require_same_device(op, images, loss);
}

/// Checks the gradients of two images that are defined.
inline void check_pair_gradients(const char* op, const Tensor& warped, const Tensor& grad_warped,
                                 const Tensor& grad_fixed) {
  for (const Tensor* grad : {&grad_warped, &grad_fixed}) {
    if (grad->defined()) check_image_pair(op, warped, *grad);
  }
}

}  // namespace cinnabar
