#pragma once

#include "autograd/variable.hpp"
#include "kernels/cpab.hpp"
#include "kernels/cpab_basis.hpp"

namespace cinnabar {

/// A space of CPAB fields on one device and in one dtype, ready for flows. theta are coordinates in its
/// orthonormal basis (kernels/cpab_basis.hpp); theta = 0 is the identity.
///
///   CpabSpace space({3, 3});                                      // 3 x 3 boxes, closed domain
///   Variable theta(Tensor::zeros({1, space.dim()}), true);
///   Variable warped = cpab_flow(Variable(points), theta, space);  // points [P, 2] or [N, P, 2] in [0, 1]
class CpabSpace {
 public:
  explicit CpabSpace(const std::vector<std::int32_t>& boxes, const CpabConstraints& constraints = {},
                     DType dtype = DType::f32, Device device = Device::cpu());

  std::int64_t dim() const { return basis_->dim(); }
  int dims() const { return basis_->tessellation().dims(); }
  const CpabGrid& grid() const { return basis_->tessellation().grid(); }
  const CpabBasis& basis() const { return *basis_; }
  Device device() const { return maps_.device(); }
  DType dtype() const { return maps_.dtype(); }

  /// theta [N, dim] to the maps [N, cells, d, d+1] that the kernels take. Differentiable.
  Variable maps(const Variable& theta) const;
  /// [count, dim] random fields that are smooth over `length` (domain units), see CpabBasis::sample_prior.
  Tensor sample_prior(std::int64_t count, double length, double variance,
                      const RandomSequence& sequence) const;

 private:
  std::shared_ptr<const CpabBasis> basis_;
  Tensor maps_;  ///< [dim, cells d (d+1)]
};

/// Points moved by the flow of theta over unit time: [N, P, d] from points [P, d], the same for all of the
/// batch, or [N, P, d]. Differentiable in points and theta; the gradient is that of the integrator chosen.
/// The inverse is the flow of -theta, a composition is a flow of a flow's result.
Variable cpab_flow(const Variable& points, const Variable& theta, const CpabSpace& space,
                   const CpabOptions& options = {});
/// The same for fields given by their maps.
Variable cpab_flow_of_maps(const Variable& points, const Variable& maps, const CpabGrid& grid,
                           const CpabOptions& options = {});

/// Velocities [N, P, d] of theta's fields at points, and log det [N, P] of the Jacobian of their flow.
/// Constants: nothing flows back through them.
Tensor cpab_velocity(const Tensor& points, const Tensor& theta, const CpabSpace& space);
Tensor cpab_log_determinant(const Tensor& points, const Tensor& theta, const CpabSpace& space,
                            const CpabOptions& options = {});

/// [count_z count_y count_x, d] points at the centres of the cells of a regular grid over [0, 1]^d, x
/// fastest; with `corners` the outermost points lie on the boundary (align_corners). `counts` is (D,) H, W,
/// or the number of points in 1-D.
Tensor cpab_grid_points(const std::vector<std::int64_t>& counts, bool corners, DType dtype = DType::f32,
                        Device device = Device::cpu());

}  // namespace cinnabar
