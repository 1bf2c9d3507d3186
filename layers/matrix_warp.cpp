#include "layers/matrix_warp.hpp"

#include "autograd/affine_grid.hpp"
#include "autograd/elementwise.hpp"
#include "autograd/layout.hpp"
#include "autograd/matmul.hpp"
#include "autograd/matrix_inverse.hpp"

namespace cinnabar {

namespace {

constexpr double kLeastDenominator = 1e-3;

/// [rows, columns] with ones on the diagonal, like `other`.
Variable identity(std::int64_t rows, std::int64_t columns, const Variable& other) {
  std::vector<double> values(static_cast<std::size_t>(rows * columns), 0.0);
  for (std::int64_t i = 0; i < rows; ++i) values[static_cast<std::size_t>(i * columns + i)] = 1.0;
  return Variable(Tensor::from(values, {rows, columns}).to(other.value().dtype()).to(other.device()));
}

/// The last row [0 ... 0 1] below matrices [N, d, d+1].
Variable with_last_row(const Variable& upper) {
  const Shape& shape = upper.shape();
  const Variable last = slice(identity(shape[2], shape[2], upper), 0, shape[1], shape[2]);
  return concat({upper, expand(last, shape.with(1, 1))}, 1);
}

/// The identity points with a 1 behind each.
Tensor homogeneous_points(const Shape& spatial) {
  const Variable points(identity_points(spatial));
  return concat({points, Variable(Tensor::full({spatial.numel(), 1}, 1.0, DType::f64))}, 1).value();
}

}  // namespace

Variable MatrixWarp::make_grid(const Variable& parameters) const {
  return affine_grid(slice(matrices(parameters), 1, 0, dims()), spatial(), true);
}

Variable MatrixWarp::make_inverse(const Variable& parameters) const {
  return parameters_of(matrix_inverse(matrices(parameters)));
}

Variable MatrixWarp::make_composition(const Variable& outer, const Variable& inner) const {
  return parameters_of(matmul(matrices(outer), matrices(inner)));
}

AffineWarp::AffineWarp(const Shape& spatial) : MatrixWarp(spatial, spatial.rank() * (spatial.rank() + 1)) {}

Variable AffineWarp::matrices(const Variable& parameters) const {
  const std::int64_t d = dims();
  return with_last_row(reshape(parameters, {-1, d, d + 1}) + identity(d, d + 1, parameters));
}

Variable AffineWarp::parameters_of(const Variable& matrices) const {
  const std::int64_t d = dims();
  return reshape(slice(matrices, 1, 0, d) - identity(d, d + 1, matrices), {-1, d * (d + 1)});
}

AttentionWarp::AttentionWarp(const Shape& spatial) : MatrixWarp(spatial, 1 + spatial.rank()) {}

Variable AttentionWarp::matrices(const Variable& parameters) const {
  const std::int64_t d = dims(), batch = parameters.shape()[0];
  const Variable scale = reshape(exp(slice(parameters, 1, 0, 1)), {batch, 1, 1});
  const Variable shift = reshape(slice(parameters, 1, 1, 1 + d), {batch, d, 1});
  return with_last_row(concat({scale * identity(d, d, parameters), shift}, 2));
}

Variable AttentionWarp::parameters_of(const Variable& matrices) const {
  const std::int64_t d = dims();
  const Variable scale = reshape(slice(matrices, {{}, {0, 1}, {0, 1}}), {-1, 1});
  return concat({log(scale), reshape(slice(matrices, {{}, {0, d}, {d, d + 1}}), {-1, d})}, 1);
}

HomographyWarp::HomographyWarp(const Shape& spatial)
    : MatrixWarp(spatial, 8), points_(homogeneous_points(spatial)) {
  CINNABAR_CHECK(spatial.rank() == 2, "homography_warp", "is for 2-D images, got extents ", spatial);
}

Variable HomographyWarp::matrices(const Variable& parameters) const {
  return reshape(pad(parameters, {{0, 0}, {0, 1}}), {-1, 3, 3}) + identity(3, 3, parameters);
}

Variable HomographyWarp::parameters_of(const Variable& matrices) const {
  const Variable scaled = matrices / slice(matrices, {{}, {2, 3}, {2, 3}});
  return slice(reshape(scaled - identity(3, 3, matrices), {-1, 9}), 1, 0, 8);
}

Variable HomographyWarp::make_grid(const Variable& parameters) const {
  const Variable points(points_.like(parameters.value()));
  const Variable mapped = matmul(points, matrices(parameters), false, true);  // [N, voxels, 3]
  const Variable denominator =
      maximum(slice(mapped, 2, 2, 3),
              Variable(Tensor::full({1}, kLeastDenominator, points.value().dtype(), points.device())));
  return reshape(slice(mapped, 2, 0, 2) / denominator, grid_shape(parameters.shape()[0]));
}

}  // namespace cinnabar
