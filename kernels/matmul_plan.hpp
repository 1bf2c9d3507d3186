#pragma once

#include "kernels/matmul.hpp"
#include "kernels/strided.hpp"

namespace cinnabar {

/// A checked product: extents of one matrix product and the walk over the batch, whose operands 0 and 1 are
/// the element offsets into a and b. Row strides are those of the stored matrices.
struct MatmulPlan {
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  std::int64_t row_a = 0;
  std::int64_t row_b = 0;
  StridedLoop<2> batch;
};

inline Shape batch_axes(const Shape& shape) {
  return shape.without(-1).without(-1);
}

inline MatmulPlan plan_matmul(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b,
                              const Tensor& output) {
  require_floating("matmul", a);
  require_same_device("matmul", a, b);
  require_same_device("matmul", a, output);
  require_dtype("matmul", b, a.dtype());
  require_dtype("matmul", output, a.dtype());
  CINNABAR_CHECK(a.rank() >= 2 && b.rank() >= 2 && output.rank() >= 2, "matmul", "needs matrices, got ", a,
                 ", ", b, " and output ", output);
  MatmulPlan plan;
  plan.m = a.shape(transpose_a ? -1 : -2);
  plan.k = a.shape(transpose_a ? -2 : -1);
  plan.n = b.shape(transpose_b ? -2 : -1);
  plan.row_a = a.shape(-1);
  plan.row_b = b.shape(-1);
  CINNABAR_CHECK(b.shape(transpose_b ? -1 : -2) == plan.k, "matmul", "inner extents differ: ", a,
                 transpose_a ? " transposed" : "", " and ", b, transpose_b ? " transposed" : "");
  CINNABAR_CHECK(output.shape(-2) == plan.m && output.shape(-1) == plan.n, "matmul", "output ", output,
                 " is not ", plan.m, " x ", plan.n);
  plan.batch =
      broadcast_loop<2>("matmul", batch_axes(output.shape()), {batch_axes(a.shape()), batch_axes(b.shape())});
  for (int axis = 0; axis < plan.batch.rank; ++axis) {
    plan.batch.stride[axis][0] *= plan.m * plan.k;
    plan.batch.stride[axis][1] *= plan.k * plan.n;
  }
  return plan;
}

}  // namespace cinnabar
