#pragma once

#include "kernels/cpab_tessellation.hpp"
#include "kernels/random.hpp"

namespace cinnabar {

/// What a CPAB space asks of its fields besides continuity.
struct CpabConstraints {
  bool zero_boundary = true;       ///< no flow through the boundary: the domain maps onto itself
  bool volume_preserving = false;  ///< tr A_c = 0: the Jacobian determinant of the flow is 1
  /// Continuity beside the domain as libcpab asks for it whenever the boundary is free: in 2-D along the rays
  /// that leave from the vertices on a side, in 3-D along the diagonal of each box's outer face.
  bool valid_outside = false;
};

/// Rows [R, cells d (d+1)] of the linear constraints C vec(A) = 0 on a field's matrices: continuity (both
/// matrices of two neighbours agree at the vertices they share), then the rest in the order above. Dense and
/// meant to be read and tested; the basis is found in the much smaller space of node velocities.
Tensor cpab_constraint_matrix(const CpabTessellation& tessellation, const CpabConstraints& constraints);

/// The space of CPAB fields under some constraints with an orthonormal basis: A = sum_k theta_k B_k and
/// sum B_i B_j = (i = j) over all entries of the matrices (Freifeld et al., TPAMI 2017, section 3.3).
///
/// The basis is the Gram-Schmidt orthonormalisation, in this order, of the fields that move one coordinate of
/// one free vertex (vertex by vertex, x first); under volume preservation or outside constraints first those
/// moves are projected onto the space and dependent ones left out. So it is the same on every machine up to
/// rounding, signs included.
class CpabBasis {
 public:
  CpabBasis(const CpabTessellation& tessellation, const CpabConstraints& constraints);

  const CpabTessellation& tessellation() const { return tessellation_; }
  const CpabConstraints& constraints() const { return constraints_; }
  std::int64_t dim() const { return dim_; }

  /// f64 [dim, cells, d, d+1], as matrices and as maps (kernels/cpab_tessellation.hpp), and [dim, vertices,
  /// d].
  const Tensor& matrices() const { return matrices_; }
  const Tensor& maps() const { return maps_; }
  const Tensor& nodes() const { return nodes_; }

  /// theta [N, dim] to matrices [N, cells, d, d+1], and the theta of the field of this space nearest to given
  /// matrices. f64 on the CPU.
  Tensor matrices_of(const Tensor& theta) const;
  Tensor theta_of(const Tensor& matrices) const;

  /// [dim, dim]: covariance B^T K B of theta for velocities that are smooth over the domain: entries of A_c
  /// and A_c' at the same place have covariance variance exp(-|x_c - x_c'|^2 / (2 length^2)), x_c the centres
  /// (Freifeld et al., section 3.5). `length` in domain units.
  Tensor prior_covariance(double length, double variance) const;
  /// [count, dim] samples of the normal distribution with that covariance.
  Tensor sample_prior(std::int64_t count, double length, double variance,
                      const RandomSequence& sequence) const;

 private:
  CpabTessellation tessellation_;
  CpabConstraints constraints_;
  std::int64_t dim_ = 0;
  Tensor matrices_;
  Tensor maps_;
  Tensor nodes_;
};

}  // namespace cinnabar
