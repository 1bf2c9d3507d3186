#pragma once

#include "autograd/variable.hpp"
#include "kernels/cpab.hpp"
#include "kernels/cpab_basis.hpp"

namespace cinnabar {

/// What theta stands for.
enum class CpabParameters {
  /// Coordinates in the orthonormal basis of kernels/cpab_basis.hpp. Each moves all of the domain.
  orthonormal,
  /// Velocities of the free vertices (kernels/cpab_nodes.hpp). Each moves the cells around its vertex, so
  /// spaces may
  /// have many more of them. Not for constraints that tie vertices together.
  nodal,
};

/// A space of CPAB fields on one device and in one dtype, ready for flows; theta = 0 is the identity.
///
///   CpabSpace space({3, 3});                                      // 3 x 3 boxes, closed domain
///   Variable theta(Tensor::zeros({1, space.dim()}), true);
///   Variable warped = cpab_flow(Variable(points), theta, space);  // points [P, 2] or [N, P, 2] in [0, 1]
class CpabSpace {
 public:
  explicit CpabSpace(const std::vector<std::int32_t>& boxes, const CpabConstraints& constraints = {},
                     DType dtype = DType::f32, Device device = Device::cpu(),
                     CpabParameters parameters = CpabParameters::orthonormal);

  std::int64_t dim() const { return dim_; }
  int dims() const { return tessellation_.dims(); }
  const CpabGrid& grid() const { return tessellation_.grid(); }
  const CpabTessellation& tessellation() const { return tessellation_; }
  CpabParameters parameters() const { return parameters_; }
  /// The orthonormal basis. Throws Error for nodal parameters, which do without it.
  const CpabBasis& basis() const;
  Device device() const { return device_; }
  DType dtype() const { return dtype_; }

  /// theta [N, dim] to the maps [N, cells, d, d+1] that the kernels take. Differentiable.
  Variable maps(const Variable& theta) const;
  /// [count, dim] random fields that are smooth over `length` (domain units), see CpabBasis::sample_prior;
  /// the same fields for either kind of parameters.
  Tensor sample_prior(std::int64_t count, double length, double variance,
                      const RandomSequence& sequence) const;

 private:
  CpabTessellation tessellation_;
  CpabConstraints constraints_;
  DType dtype_;
  Device device_;
  CpabParameters parameters_;
  std::int64_t dim_ = 0;
  std::shared_ptr<const CpabBasis> basis_;  ///< for orthonormal parameters
  Tensor maps_;                             ///< [dim, cells d (d+1)]; for orthonormal parameters
  Tensor places_;                           ///< [vertices, d]; for nodal parameters
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
