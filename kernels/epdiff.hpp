#pragma once

#include "kernels/field_shape.hpp"
#include "kernels/op.hpp"

namespace cinnabar {

/// Differential operators of vector-momentum LDDMM (Singh et al., "A vector momenta formulation of
/// diffeomorphisms for improved geodesic regression and atlas construction", ISBI 2013; PyCA).
///
/// Shapes: images [N, 1, D, H, W]; fields [N, 3, D, H, W], components x, y, z in voxels; maps are passed as
/// displacements u of h = id + u. D_d f = (f[min(i+1, n-1)] - f[max(i-1, 0)]) / 2 on every voxel, so at a
/// face the difference is half the one-sided one and D_d h_d of the identity is 1/2 there, as in the
/// reference. All kernels assign their outputs and are deterministic. `..._backward` are the exact
/// transposes.
struct Epdiff {
  /// gradient_d = D_d image.
  void (*image_gradient)(const Tensor& image, Tensor& gradient);
  void (*image_gradient_backward)(const Tensor& grad_gradient, Tensor& grad_image);

  /// jacobian [N, 9, D, H, W]: J_ij = D_j h_i at channel 3 i + j, of h = id + u.
  void (*jacobian)(const Tensor& displacement, Tensor& jacobian);
  void (*jacobian_backward)(const Tensor& grad_jacobian, Tensor& grad_displacement);

  /// determinant [N, 1, D, H, W] of D h with true one-sided differences at faces (1 for the identity).
  void (*jacobian_determinant)(const Tensor& displacement, Tensor& determinant);
  void (*jacobian_determinant_backward)(const Tensor& grad_determinant, const Tensor& displacement,
                                        Tensor& grad_displacement);

  /// Coadjoint action CoAd(h, m) = det(D h) (D h)^T (m o h), m zero outside the grid.
  void (*coad)(const Tensor& displacement, const Tensor& momentum, Tensor& result);
  void (*coad_backward)(const Tensor& grad_result, const Tensor& displacement, const Tensor& momentum,
                        Tensor& grad_displacement, Tensor& grad_momentum);

  /// Infinitesimal coadjoint: out_i = sum_j D_j(m_i v_j) + sum_j (D_i v_j) m_j.
  void (*coad_inf)(const Tensor& velocity, const Tensor& momentum, Tensor& result);
  void (*coad_inf_backward)(const Tensor& grad_result, const Tensor& velocity, const Tensor& momentum,
                            Tensor& grad_velocity, Tensor& grad_momentum);

  /// out_i = sum_j (D_j v_i) w_j.
  void (*jacobian_times_vector)(const Tensor& velocity, const Tensor& vector, Tensor& result);
  void (*jacobian_times_vector_backward)(const Tensor& grad_result, const Tensor& velocity,
                                         const Tensor& vector, Tensor& grad_velocity, Tensor& grad_vector);
};

CINNABAR_OP(Epdiff, epdiff);

/// Extents of an operator's input [N, channels, D, H, W] after checking it and an output with
/// `output_channels` on the same grid. `op` names the operator in errors. Throws Error.
FieldShape epdiff_shape(const char* op, const Tensor& input, std::int64_t channels, const Tensor& output,
                        std::int64_t output_channels);
/// The same for operators of two fields [N, 3, D, H, W] with a field as their result.
FieldShape epdiff_shape(const char* op, const Tensor& first, const Tensor& second, const Tensor& result);
/// The same for their transposes.
FieldShape epdiff_shape(const char* op, const Tensor& grad_result, const Tensor& first, const Tensor& second,
                        const Tensor& grad_first, const Tensor& grad_second);

}  // namespace cinnabar
