#include "autograd/grid_sample.hpp"

#include <vector>

namespace cinnabar {

Variable grid_sample(const Variable& input, const Variable& grid, const GridSampleOptions& options) {
  const Tensor image = input.value();
  const Tensor points = grid.value();
  const int rank = image.rank();
  CINNABAR_CHECK((rank == 4 || rank == 5) && points.rank() == rank, "grid_sample",
                 "needs [N, C, (D,) H, W] and [N, (D,) H, W, 2 or 3], got ", image, " and ", points);
  std::vector<std::int64_t> extents(image.shape().begin(), image.shape().end());
  for (int axis = 2; axis < rank; ++axis) {
    extents[static_cast<std::size_t>(axis)] = points.shape(axis - 1);
  }
  Tensor output = Tensor::empty(Shape(extents), image.dtype(), image.device());
  grid_sample_on(image.device()).forward(image, points, options, output);
  const bool wants_input = input.requires_grad();
  const bool wants_grid = grid.requires_grad();
  return record_one("grid_sample", output, {input, grid}, [=](const Tensor& grad_output) {
    std::vector<Tensor> grads(2);
    const GridSample& kernels = grid_sample_on(image.device());
    if (wants_input) {
      grads[0] = Tensor::empty_like(image);
      kernels.backward_input(grad_output, points, options, grads[0]);
    }
    if (wants_grid) {
      grads[1] = Tensor::empty_like(points);
      kernels.backward_grid(grad_output, image, points, options, grads[1]);
    }
    return grads;
  });
}

}  // namespace cinnabar
