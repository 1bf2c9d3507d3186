#pragma once

#include "layers/cpab_transformer.hpp"
#include "layers/grid_generator.hpp"

namespace cinnabar {

/// The flow of a CPAB field as a grid generator (Detlefsen et al., CVPR 2018; docs/cpab.md). Parameters are
/// theta, in the basis of the space; -theta is the inverse.
class CpabWarp : public GridGenerator {
 public:
  /// `boxes` along x, y(, z).
  CpabWarp(const Shape& spatial, const std::vector<std::int32_t>& boxes,
           const CpabConstraints& constraints = {}, const CpabOptions& options = {});

  bool has_inverse() const override { return true; }
  /// The space in f32 on the CPU, or where it was last used.
  const CpabSpace& space() const { return transformer_->space(); }

 private:
  CpabWarp(const Shape& spatial, std::unique_ptr<CpabTransformer> transformer,
           const std::vector<std::int32_t>& boxes, const CpabConstraints& constraints,
           const CpabOptions& options);
  const char* name() const override { return "cpab_warp"; }
  Variable make_grid(const Variable& parameters) const override;
  Variable make_inverse(const Variable& parameters) const override;

  std::vector<std::int32_t> boxes_;
  CpabConstraints constraints_;
  CpabOptions options_;
  mutable std::unique_ptr<CpabTransformer> transformer_;
};

}  // namespace cinnabar
