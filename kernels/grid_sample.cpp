#include "kernels/grid_sample.hpp"

#include <limits>

namespace cinnabar {

GridSampleShape grid_sample_shape(const Tensor& input, const Tensor& grid, const Tensor& output) {
  constexpr const char* kOp = "grid_sample";
  const int rank = input.rank();
  CINNABAR_CHECK(rank == 4 || rank == 5, kOp, "input must be [N, C, (D,) H, W], got ", input);
  GridSampleShape shape;
  shape.dims = rank - 2;
  CINNABAR_CHECK(grid.rank() == rank && grid.shape(-1) == shape.dims, kOp, "grid must be [N, (D,) H, W, ",
                 shape.dims, "] for input ", input, ", got ", grid);
  CINNABAR_CHECK(grid.shape(0) == input.shape(0), kOp, "batch sizes differ: ", input, " and ", grid);
  shape.batch = input.shape(0);
  shape.channels = input.shape(1);
  shape.points = 1;
  shape.volume = 1;
  CINNABAR_CHECK(output.rank() == rank && output.shape(0) == shape.batch && output.shape(1) == shape.channels,
                 kOp, "output ", output, " does not fit input ", input);
  for (int axis = 0; axis < shape.dims; ++axis) {
    const std::int64_t extent = input.shape(-1 - axis);
    CINNABAR_CHECK(extent >= 1 && extent < std::numeric_limits<std::int32_t>::max() / 4, kOp,
                   "spatial extents must be at least 1, got ", input);
    CINNABAR_CHECK(output.shape(-1 - axis) == grid.shape(-2 - axis), kOp, "output ", output,
                   " does not fit grid ", grid);
    shape.extent[axis] = static_cast<std::int32_t>(extent);
    shape.volume *= extent;
    shape.points *= grid.shape(-2 - axis);
  }
  require_floating(kOp, input);
  require_dtype(kOp, grid, input.dtype());
  require_dtype(kOp, output, input.dtype());
  require_same_device(kOp, input, grid);
  require_same_device(kOp, input, output);
  return shape;
}

}  // namespace cinnabar
