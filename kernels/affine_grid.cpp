#include "kernels/affine_grid.hpp"

namespace cinnabar {

int affine_grid_dims(const Tensor& theta, const Tensor& grid) {
  constexpr const char* kOp = "affine_grid";
  const int dims = grid.rank() - 2;
  CINNABAR_CHECK((dims == 2 || dims == 3) && grid.shape(-1) == dims, kOp,
                 "grid must be [N, H, W, 2] or [N, D, H, W, 3], got ", grid);
  CINNABAR_CHECK(theta.shape() == (Shape{grid.shape(0), dims, dims + 1}), kOp, "theta must be [N, ", dims,
                 ", ", dims + 1, "] for grid ", grid, ", got ", theta);
  require_floating(kOp, theta);
  require_dtype(kOp, grid, theta.dtype());
  require_same_device(kOp, theta, grid);
  return dims;
}

}  // namespace cinnabar
