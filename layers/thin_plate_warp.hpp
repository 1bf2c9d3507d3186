#pragma once

#include "layers/grid_generator.hpp"

namespace cinnabar {

/// Thin-plate splines (Bookstein, IEEE TPAMI 1989; Duchon 1977): of all maps that take the control points c_k
/// to c_k + v_k the one that bends least,
///
///   T(x) = x + a_0 + A x + sum_k w_k U(|x - c_k|),  U(r) = r^2 log r (2-D) or r (3-D),
///
/// with sum_k w_k [1, c_k] = 0. Control points lie on a regular lattice with its outermost points at +-1, x
/// fastest. The system in (w, a_0, A) depends on them alone: it is factorised once, in f64, and what remains
/// is one matrix [voxels, K] times the displacements v. Parameters: v point by point, x first, d K numbers,
/// in the coordinates of the grid.
///
/// The matrix takes 8 voxels K bytes, and as much again in the dtype used.
class ThinPlateWarp : public GridGenerator {
 public:
  /// `control_points` along x, y(, z), at least 2 each.
  ThinPlateWarp(const Shape& spatial, const std::vector<std::int64_t>& control_points);

  /// f64 [K, d].
  const Tensor& control_points() const { return control_points_; }
  /// f64 [P, K]: how much each control point's displacement counts at points f64 [P, d].
  Tensor weights(const Tensor& points) const;

 private:
  const char* name() const override { return "thin_plate_warp"; }
  Variable make_grid(const Variable& parameters) const override;

  Tensor control_points_;
  Tensor solution_;  ///< f64 [K + d + 1, K]: coefficients of the spline of each control point
  FixedTable identity_, weights_;
};

}  // namespace cinnabar
