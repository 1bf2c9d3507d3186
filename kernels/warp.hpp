#pragma once

#include "kernels/op.hpp"
#include "kernels/trilinear.hpp"

namespace cinnabar {

/// Trilinear sampling along a displacement field, no normalised grid in between.
///
/// Shapes: input [N, C, D, H, W]; displacement u [N, 3, D, H, W] in voxels, components x, y, z; output like
/// input. Positions are p = x + u(x); the cell and fraction are taken from u alone (cell = x + floor(u)), so
/// accuracy does not fall with the grid size. Boundary::border is PyCA's CLAMP (images), Boundary::zeros its
/// PARTIAL_ZERO (each corner outside the grid counts as zero; fields). N of the input may be 1.
/// All kernels assign their outputs and are deterministic.
struct Warp {
  /// output(x) = input(x + u(x)).
  void (*forward)(const Tensor& input, const Tensor& displacement, Boundary boundary, Tensor& output);
  /// The transpose in the input, PyCA's Splat: grad_input(p) = sum over x of w_p(x) grad_output(x).
  void (*backward_input)(const Tensor& grad_output, const Tensor& displacement, Boundary boundary,
                         Tensor& grad_input);
  /// d output / d u, the slope of the cell that holds the position.
  void (*backward_displacement)(const Tensor& grad_output, const Tensor& input, const Tensor& displacement,
                                Boundary boundary, Tensor& grad_displacement);
  /// Displacement of (id + outer) o (id + inner): inner + outer(x + inner), `outer` zero outside. On maps
  /// this is PyCA's PARTIAL_ID (each corner outside counts as its own position).
  void (*compose)(const Tensor& outer, const Tensor& inner, Tensor& composed);
};

CINNABAR_OP(Warp, warp);

}  // namespace cinnabar
