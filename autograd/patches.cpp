#include "autograd/patches.hpp"

namespace cinnabar {

namespace {

constexpr const char* kOp = "patches";

Tensor gathered(const Tensor& volumes, const Tensor& starts, const Shape& extents) {
  Tensor patches = Tensor::empty({starts.shape(0), volumes.shape(1), extents[0], extents[1], extents[2]},
                                 volumes.dtype(), volumes.device());
  patches_on(volumes.device()).gather(volumes, starts, patches);
  return patches;
}

Tensor scattered(const Tensor& patches, const Tensor& starts, const Shape& shape) {
  Tensor volumes = Tensor::zeros(shape, patches.dtype(), patches.device());
  patches_on(patches.device()).scatter(patches, starts, volumes);
  return volumes;
}

}  // namespace

Variable gather_patches(const Variable& volumes, const Tensor& starts, const Shape& extents) {
  const Tensor& source = volumes.value();
  CINNABAR_CHECK(source.rank() == 5 && starts.defined() && starts.rank() == 2 && extents.rank() == 3, kOp,
                 "needs volumes [V, C, D, H, W], starts [N, 4] and extents (d, h, w), got ", source, ", ",
                 starts, " and ", extents);
  const Shape shape = source.shape();
  return record_one(kOp, gathered(source, starts, extents), {volumes},
                    [=](const Tensor& grad) { return std::vector<Tensor>{scattered(grad, starts, shape)}; });
}

Variable scatter_patches(const Variable& patches, const Tensor& starts, const Shape& volumes,
                         PatchOverlap overlap) {
  const Tensor& source = patches.value();
  CINNABAR_CHECK(source.rank() == 5 && volumes.rank() == 5, kOp,
                 "needs patches [N, C, d, h, w] and the shape [V, C, D, H, W] of the volumes, got ", source,
                 " and ", volumes);
  const Shape extents{source.shape(2), source.shape(3), source.shape(4)};
  Tensor output = scattered(source, starts, volumes);
  Tensor counts;
  if (overlap == PatchOverlap::average) {
    counts = Tensor::zeros(volumes.with(1, 1), source.dtype(), source.device());
    patches_on(source.device()).count(starts, extents, counts);
    patches_on(source.device()).average(counts, output);
  }
  return record_one(kOp, output, {patches}, [=](const Tensor& grad_output) {
    Tensor grad = grad_output;
    if (counts.defined()) {
      grad = grad_output.clone();
      patches_on(grad.device()).average(counts, grad);
    }
    return std::vector<Tensor>{gathered(grad, starts, extents)};
  });
}

}  // namespace cinnabar
