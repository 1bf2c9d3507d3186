#pragma once

#include "kernels/field_shape.hpp"
#include "kernels/op.hpp"

namespace cinnabar {

/// Inverse of a map after a small increment: psi'_0 = psi, then N times psi' <- psi o (id - w o psi')
/// (PyCA's UpdateInverse; w zero outside the grid, psi the identity outside).
///
/// Shapes: all [N, 3, D, H, W] in voxels; psi and psi' are displacements of maps, w an increment field.
/// The N iterations of a voxel are independent of its neighbours, so they run fused, and a voxel stops as
/// soon as it repeats (fixed point or 2-cycle): the result has the bits of the full loop. Kernels assign
/// their outputs and are deterministic.
struct UpdateInverse {
  void (*forward)(const Tensor& psi, const Tensor& increment, int iterations, Tensor& updated);
  /// Gradient of the fixed point psi' = psi o (id - w o psi') at `updated`, by the implicit function theorem:
  /// with A = I + Du(y) at y = x - w and Dw at x + psi', a = (I + A Dw)^-T grad is spread at y into grad_psi,
  /// and -A^T a at x + psi' into grad_increment. Exact where `updated` has converged; after N iterations it
  /// is off by about the N-th power of the contraction |Dw|, so differentiated shooting takes enough of them
  /// (20 cost little more than 5, because voxels stop early).
  void (*backward)(const Tensor& grad_updated, const Tensor& psi, const Tensor& increment,
                   const Tensor& updated, Tensor& grad_psi, Tensor& grad_increment);
};

CINNABAR_OP(UpdateInverse, update_inverse);

/// Extents of a call to forward after checking its arguments; at most 64 iterations. Throws Error.
FieldShape update_inverse_shape(const Tensor& psi, const Tensor& increment, int iterations,
                                const Tensor& updated);
/// The same for backward.
FieldShape update_inverse_backward_shape(const Tensor& grad_updated, const Tensor& psi,
                                         const Tensor& increment, const Tensor& updated,
                                         const Tensor& grad_psi, const Tensor& grad_increment);

}  // namespace cinnabar
