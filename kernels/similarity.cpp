#include "kernels/similarity.hpp"

#include "kernels/image_pair_checks.hpp"

namespace cinnabar {

namespace {
constexpr const char* kOp = "similarity";
}

SimilarityShape similarity_shape(const Tensor& warped, const Tensor& fixed, const Tensor& weight,
                                 const Tensor& sums, int sums_per_entry, const Tensor& loss) {
  CINNABAR_CHECK(warped.rank() >= 3 && warped.numel() > 0, kOp, "images must be [N, C, ...], got ", warped);
  check_image_pair(kOp, warped, fixed);
  const MaskStrides strides = mask_strides(kOp, "weight", weight, warped);
  check_sums_and_loss(kOp, warped, sums, {warped.shape(0), sums_per_entry}, loss);
  SimilarityShape shape;
  shape.batch = warped.shape(0);
  shape.channels = warped.shape(1);
  shape.voxels = warped.numel() / (shape.batch * shape.channels);
  shape.weight_batch_stride = strides.batch;
  shape.weight_channel_stride = strides.channel;
  return shape;
}

void check_similarity_gradients(const Tensor& warped, const Tensor& grad_warped, const Tensor& grad_fixed) {
  check_pair_gradients(kOp, warped, grad_warped, grad_fixed);
}

}  // namespace cinnabar
