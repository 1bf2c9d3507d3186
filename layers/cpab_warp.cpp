#include "layers/cpab_warp.hpp"

#include "autograd/elementwise.hpp"

namespace cinnabar {

CpabWarp::CpabWarp(const Shape& spatial, const std::vector<std::int32_t>& boxes,
                   const CpabConstraints& constraints, const CpabOptions& options)
    : CpabWarp(spatial, std::make_unique<CpabTransformer>(boxes, constraints, options), boxes, constraints,
               options) {}

CpabWarp::CpabWarp(const Shape& spatial, std::unique_ptr<CpabTransformer> transformer,
                   const std::vector<std::int32_t>& boxes, const CpabConstraints& constraints,
                   const CpabOptions& options)
    : GridGenerator(spatial, transformer->space().dim()),
      boxes_(boxes),
      constraints_(constraints),
      options_(options),
      transformer_(std::move(transformer)) {
  CINNABAR_CHECK(static_cast<int>(boxes.size()) == dims(), "cpab_warp", boxes.size(),
                 " numbers of boxes for extents ", spatial);
}

Variable CpabWarp::make_grid(const Variable& parameters) const {
  const Tensor& theta = parameters.value();
  if (space().dtype() != theta.dtype() || space().device() != theta.device()) {
    transformer_ =
        std::make_unique<CpabTransformer>(boxes_, constraints_, options_, theta.dtype(), theta.device());
  }
  return transformer_->grid(parameters, spatial());
}

Variable CpabWarp::make_inverse(const Variable& parameters) const {
  return -parameters;
}

}  // namespace cinnabar
