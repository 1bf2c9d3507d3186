#include "models/ic_stn.hpp"

namespace cinnabar {

IcStn::IcStn(std::unique_ptr<Layer> predictor, std::shared_ptr<const GridGenerator> warp, int recursions,
             Boundary boundary)
    : predictor_(std::move(predictor)), warp_(std::move(warp)), recursions_(recursions), boundary_(boundary) {
  CINNABAR_CHECK(predictor_ != nullptr && warp_ != nullptr, "ic_stn", "needs a predictor and a warp");
  CINNABAR_CHECK(warp_->has_composition(), "ic_stn",
                 "needs a warp with compositions, such as affine or homography");
  CINNABAR_CHECK(recursions >= 1, "ic_stn", "needs at least one recursion, got ", recursions);
  add_child("predictor", *predictor_);
}

IcStn::IcStn(std::int64_t channels, std::shared_ptr<const GridGenerator> warp,
             const LocalisationOptions& options, Generator& weights, int recursions)
    : IcStn(std::make_unique<Localisation>(channels, warp->spatial(), warp->parameter_count(), options,
                                           weights),
            warp, recursions) {}

Variable IcStn::transformation(const Variable& images, int recursions) {
  CINNABAR_CHECK(recursions >= 1, "ic_stn", "needs at least one recursion, got ", recursions);
  Variable p = predictor_->forward(images);
  for (int k = 1; k < recursions; ++k) {
    p = warp_->compose(predictor_->forward(transformed(images, *warp_, p, boundary_)), p);
  }
  return p;
}

Variable IcStn::forward(const Variable& images) {
  return transformed(images, *warp_, transformation(images), boundary_);
}

}  // namespace cinnabar
