#include "layers/thin_plate_warp.hpp"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

#include "autograd/elementwise.hpp"
#include "autograd/layout.hpp"
#include "autograd/matmul.hpp"

namespace cinnabar {

namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// The control points: an identity grid of few points. Counts are x first, extents are x last.
Tensor lattice_points(const Shape& spatial, const std::vector<std::int64_t>& counts) {
  CINNABAR_CHECK(counts.size() == static_cast<std::size_t>(spatial.rank()), "thin_plate_warp", counts.size(),
                 " numbers of control points for extents ", spatial);
  for (const std::int64_t count : counts) {
    CINNABAR_CHECK(count >= 2, "thin_plate_warp", "needs at least 2 control points along an axis, got ",
                   count);
  }
  return identity_points(Shape(std::vector<std::int64_t>(counts.rbegin(), counts.rend())));
}

/// [P, K + d + 1]: the functions U(|x - c_k|), 1 and x at points.
Matrix functions_at(const Tensor& points, const Tensor& centres) {
  const std::int64_t rows = points.shape(0), count = centres.shape(0), d = centres.shape(1);
  const double* x = points.data<double>();
  const double* c = centres.data<double>();
  Matrix values(rows, count + d + 1);
  for (std::int64_t p = 0; p < rows; ++p) {
    for (std::int64_t k = 0; k < count; ++k) {
      double squared = 0.0;
      for (std::int64_t axis = 0; axis < d; ++axis) {
        const double difference = x[p * d + axis] - c[k * d + axis];
        squared += difference * difference;
      }
      // r^2 log r = r^2 log(r^2) / 2, which is 0 at r = 0.
      if (d == 3) {
        values(p, k) = std::sqrt(squared);
      } else {
        values(p, k) = squared > 0.0 ? 0.5 * squared * std::log(squared) : 0.0;
      }
    }
    values(p, count) = 1.0;
    for (std::int64_t axis = 0; axis < d; ++axis) values(p, count + 1 + axis) = x[p * d + axis];
  }
  return values;
}

/// Solves [K P; P^T 0] [w; a] = [v; 0] for unit displacements v of each control point.
Tensor solve(const Tensor& centres) {
  const std::int64_t count = centres.shape(0), size = count + centres.shape(1) + 1;
  Eigen::MatrixXd system = Eigen::MatrixXd::Zero(size, size);
  system.topRows(count) = functions_at(centres, centres);
  system.bottomLeftCorner(size - count, count) = system.topRightCorner(count, size - count).transpose();
  const Eigen::MatrixXd units = Eigen::MatrixXd::Identity(size, count);
  Tensor solution = Tensor::empty({size, count}, DType::f64);
  Eigen::Map<Matrix>(solution.data<double>(), size, count) = system.partialPivLu().solve(units);
  return solution;
}

}  // namespace

ThinPlateWarp::ThinPlateWarp(const Shape& spatial, const std::vector<std::int64_t>& control_points)
    : GridGenerator(spatial, lattice_points(spatial, control_points).numel()),
      control_points_(lattice_points(spatial, control_points)),
      solution_(solve(control_points_)),
      identity_(identity_points(spatial)),
      weights_(weights(identity_points(spatial))) {}

Tensor ThinPlateWarp::weights(const Tensor& points) const {
  CINNABAR_CHECK(points.rank() == 2 && points.shape(1) == dims() && points.dtype() == DType::f64 &&
                     points.device().is_cpu(),
                 "thin_plate_warp", "needs f64 points [P, ", dims(), "] on the CPU, got ", points);
  const std::int64_t rows = points.shape(0), count = solution_.shape(1);
  Tensor result = Tensor::empty({rows, count}, DType::f64);
  const Eigen::Map<const Matrix> solution(solution_.data<double>(), solution_.shape(0), count);
  constexpr std::int64_t kChunk = 4096;  // of rows, to keep the functions' values small
  for (std::int64_t first = 0; first < rows; first += kChunk) {
    const std::int64_t here = std::min(kChunk, rows - first);
    Eigen::Map<Matrix>(result.data<double>() + first * count, here, count) =
        functions_at(points.rows(first, here), control_points_) * solution;
  }
  return result;
}

Variable ThinPlateWarp::make_grid(const Variable& parameters) const {
  const Tensor& like = parameters.value();
  const std::int64_t batch = parameters.shape()[0];
  const Variable moves = reshape(parameters, {batch, -1, dims()});
  const Variable displacement = matmul(Variable(weights_.like(like)), moves);  // [N, voxels, d]
  return reshape(displacement + Variable(identity_.like(like)), grid_shape(batch));
}

}  // namespace cinnabar
