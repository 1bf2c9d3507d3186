#include "kernels/cpab_sample.hpp"

#include <limits>

namespace cinnabar {

namespace {

constexpr const char* kOp = "cpab_sample";

void check_like(const Tensor& tensor, const Tensor& like) {
  require_same_shape(kOp, tensor, like);
  require_dtype(kOp, tensor, like.dtype());
  require_same_device(kOp, tensor, like);
}

}  // namespace

GridSampleShape cpab_sample_shape(const Tensor& image, const Tensor& maps, const CpabGrid& grid,
                                  const CpabOptions& flow, const Tensor& output) {
  cpab_check_field(kOp, maps, grid, flow);
  CINNABAR_CHECK(image.rank() == grid.dims + 2 && image.shape(0) == maps.shape(0), kOp, "needs images [",
                 maps.shape(0), ", C, ", grid.dims, " axes], got ", image);
  GridSampleShape shape;
  shape.dims = grid.dims;
  shape.batch = image.shape(0);
  shape.channels = image.shape(1);
  shape.volume = 1;
  for (int axis = 0; axis < shape.dims; ++axis) {
    const std::int64_t extent = image.shape(-1 - axis);
    CINNABAR_CHECK(extent >= 1 && extent < std::numeric_limits<std::int32_t>::max() / 4, kOp,
                   "spatial extents must be at least 1, got ", image);
    shape.extent[axis] = static_cast<std::int32_t>(extent);
    shape.volume *= extent;
  }
  shape.points = shape.volume;
  require_dtype(kOp, image, maps.dtype());
  require_same_device(kOp, image, maps);
  check_like(output, image);
  return shape;
}

void cpab_sample_check_gradients(const Tensor& image, const Tensor& maps, const Tensor& grad_image,
                                 const Tensor& grad_maps) {
  if (grad_image.defined()) check_like(grad_image, image);
  if (grad_maps.defined()) check_like(grad_maps, maps);
}

}  // namespace cinnabar
