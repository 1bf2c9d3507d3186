#include "kernels/similarity.hpp"

namespace cinnabar {

namespace {
constexpr const char* kOp = "similarity";
}

SimilarityShape similarity_shape(const Tensor& warped, const Tensor& fixed, const Tensor& weight,
                                 const Tensor& sums, int sums_per_entry, const Tensor& loss) {
  CINNABAR_CHECK(warped.rank() >= 3 && warped.numel() > 0, kOp, "images must be [N, C, ...], got ", warped);
  require_floating(kOp, warped);
  require_same_shape(kOp, warped, fixed);
  require_dtype(kOp, fixed, warped.dtype());
  require_same_device(kOp, warped, fixed);
  SimilarityShape shape;
  shape.batch = warped.shape(0);
  shape.channels = warped.shape(1);
  shape.voxels = warped.numel() / (shape.batch * shape.channels);
  if (weight.defined()) {
    require_dtype(kOp, weight, warped.dtype());
    require_same_device(kOp, warped, weight);
    CINNABAR_CHECK(weight.rank() == warped.rank(), kOp, "weight ", weight, " does not fit images ", warped);
    for (int axis = 0; axis < warped.rank(); ++axis) {
      CINNABAR_CHECK(weight.shape(axis) == warped.shape(axis) || (axis < 2 && weight.shape(axis) == 1), kOp,
                     "weight ", weight, " does not fit images ", warped);
    }
    if (weight.shape(1) > 1) shape.weight_channel_stride = shape.voxels;
    if (weight.shape(0) > 1) shape.weight_batch_stride = shape.voxels * weight.shape(1);
  }
  CINNABAR_CHECK(sums.shape() == (Shape{shape.batch, sums_per_entry}) && sums.dtype() == DType::f64, kOp,
                 "sums must be f64 [N, ", sums_per_entry, "], got ", sums);
  require_same_device(kOp, warped, sums);
  CINNABAR_CHECK(loss.numel() == 1 && loss.dtype() == warped.dtype(), kOp, "loss must be one ",
                 warped.dtype(), ", got ", loss);
  require_same_device(kOp, warped, loss);
  return shape;
}

void check_similarity_gradients(const Tensor& warped, const Tensor& grad_warped, const Tensor& grad_fixed) {
  for (const Tensor* grad : {&grad_warped, &grad_fixed}) {
    if (!grad->defined()) continue;
    require_same_shape(kOp, warped, *grad);
    require_dtype(kOp, *grad, warped.dtype());
    require_same_device(kOp, warped, *grad);
  }
}

}  // namespace cinnabar
