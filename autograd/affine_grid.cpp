#include "autograd/affine_grid.hpp"

#include <vector>

#include "kernels/affine_grid.hpp"

namespace cinnabar {

Variable affine_grid(const Variable& theta, const Shape& spatial, bool align_corners) {
  const Tensor matrices = theta.value();
  const int dims = spatial.rank();
  CINNABAR_CHECK(matrices.rank() == 3 && (dims == 2 || dims == 3), "affine_grid",
                 "needs theta [N, 2, 3] or [N, 3, 4] and 2 or 3 extents, got ", matrices, " and ", spatial);
  std::vector<std::int64_t> extents{matrices.shape(0)};
  extents.insert(extents.end(), spatial.begin(), spatial.end());
  extents.push_back(dims);
  Tensor grid = Tensor::empty(Shape(extents), matrices.dtype(), matrices.device());
  affine_grid_on(matrices.device()).forward(matrices, align_corners, grid);
  return record_one("affine_grid", grid, {theta}, [=](const Tensor& grad_grid) {
    Tensor grad_theta = Tensor::empty_like(matrices);
    affine_grid_on(matrices.device()).backward(grad_grid, align_corners, grad_theta);
    return std::vector<Tensor>{grad_theta};
  });
}

}  // namespace cinnabar
