#pragma once

#include "layers/grid_generator.hpp"

namespace cinnabar {

/// Transformations given by a matrix M [d+1, d+1] that acts on homogeneous coordinates [x; 1]. They are
/// groups: compositions are products and inverses are inverse matrices.
class MatrixWarp : public GridGenerator {
 public:
  /// [N, P] to [N, d+1, d+1], and back; differentiable. Matrices are to be of this family.
  virtual Variable matrices(const Variable& parameters) const = 0;
  virtual Variable parameters_of(const Variable& matrices) const = 0;

  bool has_inverse() const override { return true; }
  bool has_composition() const override { return true; }

 protected:
  using GridGenerator::GridGenerator;
  Variable make_grid(const Variable& parameters) const override;
  Variable make_inverse(const Variable& parameters) const override;
  Variable make_composition(const Variable& outer, const Variable& inner) const override;
};

/// T(x) = (I + A) x + t. Parameters: the rows of [A t], d (d+1) numbers.
class AffineWarp : public MatrixWarp {
 public:
  explicit AffineWarp(const Shape& spatial);
  Variable matrices(const Variable& parameters) const override;
  Variable parameters_of(const Variable& matrices) const override;

 private:
  const char* name() const override { return "affine_warp"; }
};

/// T(x) = e^s x + t: looks at a part of the image (s < 0), or from further away. Parameters s, t, 1 + d
/// numbers. Jaderberg et al., eq. 2, with a scale that stays positive.
class AttentionWarp : public MatrixWarp {
 public:
  explicit AttentionWarp(const Shape& spatial);
  Variable matrices(const Variable& parameters) const override;
  Variable parameters_of(const Variable& matrices) const override;

 private:
  const char* name() const override { return "attention_warp"; }
};

/// T(x) = (M_1 [x; 1], M_2 [x; 1]) / M_3 [x; 1], 2-D only. Parameters: the rows of M - I without the last
/// entry, 8 numbers. The denominator is held at 1e-3 or above, so that what lies at the horizon or behind it
/// goes far outside of the image.
class HomographyWarp : public MatrixWarp {
 public:
  explicit HomographyWarp(const Shape& spatial);
  Variable matrices(const Variable& parameters) const override;
  /// Scales matrices to M_33 = 1.
  Variable parameters_of(const Variable& matrices) const override;

 private:
  const char* name() const override { return "homography_warp"; }
  Variable make_grid(const Variable& parameters) const override;

  FixedTable points_;  ///< [voxels, 3], homogeneous
};

}  // namespace cinnabar
