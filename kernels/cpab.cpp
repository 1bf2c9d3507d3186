#include "kernels/cpab.hpp"

namespace cinnabar {

void cpab_check_field(const char* op, const Tensor& maps, const CpabGrid& grid, const CpabOptions& options) {
  const std::int64_t d = grid.dims;
  CINNABAR_CHECK(d >= 1 && d <= 3, op, "needs 1 to 3 dimensions, got ", d);
  std::int64_t cells = d == 1 ? kCpabCellsPerBox<1> : d == 2 ? kCpabCellsPerBox<2> : kCpabCellsPerBox<3>;
  for (int axis = 0; axis < 3; ++axis) {
    const std::int32_t boxes = grid.boxes[axis];
    CINNABAR_CHECK(boxes >= 1 && (axis < d || boxes == 1), op, boxes, " boxes on axis ", axis, " of ", d,
                   "-D");
    cells *= boxes;
    CINNABAR_CHECK(cells <= (1 << 24), op, "more than 2^24 cells");
  }
  CINNABAR_CHECK(maps.rank() == 4 && maps.shape(1) == cells && maps.shape(2) == d && maps.shape(3) == d + 1,
                 op, "needs maps [N, ", cells, ", ", d, ", ", d + 1, "], got ", maps);
  require_floating(op, maps);
  const bool steps = options.integrator == CpabIntegrator::steps;
  CINNABAR_CHECK(!steps || (options.steps >= 1 && options.steps <= 1024), op, "needs 1 to 1024 steps, got ",
                 options.steps);
}

CpabShape cpab_shape(const Tensor& maps, const Tensor& points, const CpabGrid& grid,
                     const CpabOptions& options, const Tensor& output, bool scalar) {
  constexpr const char* kOp = "cpab";
  cpab_check_field(kOp, maps, grid, options);
  const std::int64_t d = grid.dims;
  CpabShape shape;
  shape.batch = maps.shape(0);
  shape.cells = maps.shape(1);
  shape.shared_points = points.rank() == 2;
  const bool fits = shape.shared_points || (points.rank() == 3 && points.shape(0) == shape.batch);
  CINNABAR_CHECK(fits && points.shape(-1) == d, kOp, "needs points [P, ", d, "] or [", shape.batch, ", P, ",
                 d, "], got ", points);
  shape.points = points.shape(-2);
  const Shape expected = scalar ? Shape{shape.batch, shape.points} : Shape{shape.batch, shape.points, d};
  CINNABAR_CHECK(output.shape() == expected, kOp, "needs an output ", expected, ", got ", output);
  for (const Tensor* tensor : {&points, &output}) {
    require_dtype(kOp, *tensor, maps.dtype());
    require_same_device(kOp, *tensor, maps);
  }
  return shape;
}

void cpab_check_gradients(const Tensor& maps, const Tensor& grad_output, const Tensor& grad_maps,
                          const Tensor& grad_points) {
  const auto check = [](const Tensor& grad, const Tensor& like) {
    require_same_shape("cpab", grad, like);
    require_dtype("cpab", grad, like.dtype());
    require_same_device("cpab", grad, like);
  };
  if (grad_maps.defined()) check(grad_maps, maps);
  check(grad_points, grad_output);
}

}  // namespace cinnabar
