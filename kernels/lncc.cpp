#include "kernels/lncc.hpp"

#include "kernels/image_pair_checks.hpp"

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
  check_image_pair(kOp, warped, fixed);
  const MaskStrides strides = mask_strides(kOp, "mask", mask, warped);
  check_sums_and_loss(kOp, warped, sums, {2}, loss);
  LnccShape shape;
  shape.channels = warped.shape(1);
  shape.images = warped.shape(0) * shape.channels;
  shape.depth = warped.rank() == 5 ? warped.shape(2) : 1;
  shape.height = warped.shape(-2);
  shape.width = warped.shape(-1);
  shape.mask_batch_stride = strides.batch;
  shape.mask_channel_stride = strides.channel;
  return shape;
}

void check_lncc_gradients(const Tensor& warped, const Tensor& grad_warped, const Tensor& grad_fixed) {
  check_pair_gradients(kOp, warped, grad_warped, grad_fixed);
}

}  // namespace cinnabar
