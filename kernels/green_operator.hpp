#pragma once

#include "kernels/op.hpp"

namespace cinnabar {

/// L = (-alpha Lap - beta grad(div) + gamma)^power in voxel units. The defaults are Quicksilver's. Each power
/// gives velocities one more square-integrable derivative; in three dimensions they are continuously
/// differentiable, and flows with fine voxels diffeomorphic, from power 3 on (H^s in C^1 for s > 5 / 2).
struct FluidOperator {
  double alpha = 0.01;
  double beta = 0.01;
  double gamma = 0.001;
  int power = 1;  ///< 1 to 4
};

/// Grid on which the periodic convolution runs.
enum class FftPadding {
  exact,  ///< the field's own grid, periodic: the reference's definition, slow for prime extents
  fast,   ///< zero-padded to extents with factors 2, 3, 5, 7, at least the kernel's reach beyond the field
};

/// v = K m = L^-1 m and m = L v, per frequency k the `power`-th power of a real symmetric 3x3 symbol A of
/// periodic finite differences: c_d = 2 cos(2 pi k_d / N_d) - 2, s_d = sin(2 pi k_d / N_d),
/// A_dd = gamma - alpha sum_j c_j - beta c_d, A_de = beta s_d s_e (d != e); gamma = 0: K of frequency 0 is 0.
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
