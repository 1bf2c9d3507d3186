#pragma once

#include "kernels/op.hpp"

namespace cinnabar {

/// Parameters of L = -alpha Lap - beta grad(div) + gamma in voxel units (Quicksilver: 0.01, 0.01, 0.001).
struct FluidOperator {
  double alpha = 0.01;
  double beta = 0.01;
  double gamma = 0.001;
};

/// Grid on which the periodic convolution runs.
enum class FftPadding {
  exact,  ///< the field's own grid, periodic: the reference's definition, slow for prime extents
  fast,   ///< zero-padded to extents with factors 2, 3, 5, 7, at least the kernel's reach beyond the field
};

/// v = K m = L^-1 m and m = L v, per frequency k a real symmetric 3x3 symbol of periodic finite differences:
/// c_d = 2 cos(2 pi k_d / N_d) - 2, s_d = sin(2 pi k_d / N_d),
/// L_dd = gamma - alpha sum_j c_j - beta c_d, L_de = beta s_d s_e (d != e); gamma = 0: K of frequency 0 is 0.
/// Shapes: [N, 3, D, H, W], components x, y, z. Assigns; deterministic. K and L are self-adjoint, so each is
/// its own gradient (`fast` crops after the convolution, which keeps K symmetric).
struct GreenOperator {
  void (*smooth)(const Tensor& momentum, const FluidOperator& fluid, FftPadding padding, Tensor& velocity);
  void (*sharpen)(const Tensor& velocity, const FluidOperator& fluid, FftPadding padding, Tensor& momentum);
};

CINNABAR_OP(GreenOperator, green_operator);

/// Padded extents (D, H, W) used for a field of the given spatial extents.
Shape green_operator_grid(const Shape& spatial, const FluidOperator& fluid, FftPadding padding);

}  // namespace cinnabar
