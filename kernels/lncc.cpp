#include "kernels/lncc.hpp"

namespace cinnabar {

namespace {
constexpr const char* kOp = "lncc";
}

LnccShape lncc_shape(const Tensor& warped, const Tensor& fixed, const Tensor& mask,
                     const LnccOptions& options, const Tensor& sums, const Tensor& loss) {
  CINNABAR_CHECK((warped.rank() == 4 || warped.rank() == 5) && warped.numel() > 0, kOp,
                 "images must be [N, C, (D,) H, W], got ", warped);
  CINNABAR_CHECK(options.radius >= 1 && options.radius <= kLargestLnccRadius, kOp, "radius ", options.radius,
                 " is not in 1 to ", kLargestLnccRadius);
  CINNABAR_CHECK(options.epsilon > 0.0, kOp, "epsilon ", options.epsilon, " must be positive");
  require_floating(kOp, warped);
  require_same_shape(kOp, warped, fixed);
  require_dtype(kOp, fixed, warped.dtype());
  require_same_device(kOp, warped, fixed);
  LnccShape shape;
  shape.channels = warped.shape(1);
  shape.images = warped.shape(0) * shape.channels;
  shape.depth = warped.rank() == 5 ? warped.shape(2) : 1;
  shape.height = warped.shape(-2);
  shape.width = warped.shape(-1);
  if (mask.defined()) {
    require_dtype(kOp, mask, warped.dtype());
    require_same_device(kOp, warped, mask);
    CINNABAR_CHECK(mask.rank() == warped.rank(), kOp, "mask ", mask, " does not fit images ", warped);
    for (int axis = 0; axis < warped.rank(); ++axis) {
      CINNABAR_CHECK(mask.shape(axis) == warped.shape(axis) || (axis < 2 && mask.shape(axis) == 1), kOp,
                     "mask ", mask, " does not fit images ", warped);
    }
    if (mask.shape(1) > 1) shape.mask_channel_stride = shape.voxels();
    if (mask.shape(0) > 1) shape.mask_batch_stride = shape.voxels() * mask.shape(1);
  }
  CINNABAR_CHECK(sums.shape() == (Shape{2}) && sums.dtype() == DType::f64, kOp, "sums must be f64 [2], got ",
                 sums);
  require_same_device(kOp, warped, sums);
  CINNABAR_CHECK(loss.numel() == 1 && loss.dtype() == warped.dtype(), kOp, "loss must be one ",
                 warped.dtype(), ", got ", loss);
  require_same_device(kOp, warped, loss);
  return shape;
}

void check_lncc_gradients(const Tensor& warped, const Tensor& grad_warped, const Tensor& grad_fixed) {
  for (const Tensor* grad : {&grad_warped, &grad_fixed}) {
    if (!grad->defined()) continue;
    require_same_shape(kOp, warped, *grad);
    require_dtype(kOp, *grad, warped.dtype());
    require_same_device(kOp, warped, *grad);
  }
}

}  // namespace cinnabar
