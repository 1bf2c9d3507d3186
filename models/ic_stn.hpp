#pragma once

#include "layers/spatial_transformer.hpp"

namespace cinnabar {

/// The inverse-compositional spatial transformer (Lin and Lucey, CVPR 2017): one predictor looks at the image
/// as transformed so far and says how to go on, M <- M(dp) M(p), several times. What it looks at and what
/// comes out is always the original image resampled once: nothing blurs and nothing is lost at the border.
/// All recursions share the predictor's weights, so a transformer of any number of them has the parameters of
/// a SpatialTransformer.
class IcStn : public Layer {
 public:
  /// `predictor` from images to [N, P], to start at zero; the warp must have compositions.
  IcStn(std::unique_ptr<Layer> predictor, std::shared_ptr<const GridGenerator> warp, int recursions = 4,
        Boundary boundary = Boundary::zeros);
  /// With a Localisation for images of so many channels.
  IcStn(std::int64_t channels, std::shared_ptr<const GridGenerator> warp, const LocalisationOptions& options,
        Generator& weights, int recursions = 4);

  Variable forward(const Variable& images) override;
  /// The parameters [N, P] after all recursions, or after the first of them.
  Variable transformation(const Variable& images) { return transformation(images, recursions_); }
  Variable transformation(const Variable& images, int recursions);
  const GridGenerator& warp() const { return *warp_; }
  int recursions() const { return recursions_; }

 private:
  std::unique_ptr<Layer> predictor_;
  std::shared_ptr<const GridGenerator> warp_;
  int recursions_;
  Boundary boundary_;
};

}  // namespace cinnabar
