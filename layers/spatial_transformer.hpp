#pragma once

#include <memory>
#include <vector>

#include "kernels/trilinear.hpp"
#include "layers/grid_generator.hpp"
#include "layers/initializer.hpp"
#include "layers/sequential.hpp"

namespace cinnabar {

/// images o T for each image's parameters [N, P]: [N, C, (D,) H, W] of the generator's extents, linearly
/// interpolated. 2-D transformations also take volumes of depth 1, [N, C, 1, H, W]. Differentiable in both.
Variable transformed(const Variable& images, const GridGenerator& generator, const Variable& parameters,
                     Boundary boundary = Boundary::zeros);

struct LocalisationOptions {
  std::vector<std::int64_t> channels{8, 16, 32};  ///< of the convolutions, each of which halves the extents
  std::int64_t hidden = 32;                       ///< units between the convolutions and the parameters
};

/// A small network from images [N, C, (D,) H, W] (or [N, C, 1, H, W] in 2-D) to parameters [N, P]:
/// convolutions of 3 taps an axis and stride 2, one hidden layer, and a linear layer that starts at zero, so
/// that the first transformation is the identity.
class Localisation : public Layer {
 public:
  Localisation(std::int64_t channels, const Shape& spatial, std::int64_t parameters,
               const LocalisationOptions& options, Generator& generator);
  Variable forward(const Variable& images) override;

 private:
  Sequential features_, head_;
};

/// A spatial transformer (Jaderberg et al., NIPS 2015): the localisation network looks at the images and says
/// how to transform them. A layer like any other, from images to images of the same shape.
///
///   Sequential net;
///   net.add<SpatialTransformer>(1, make_grid_generator("affine", {64, 64}), LocalisationOptions{}, weights);
///   net.add<Conv3dLayer>(1, 8, conv_squares(3, 1), weights);
class SpatialTransformer : public Layer {
 public:
  /// Any network from images to [N, P].
  SpatialTransformer(std::unique_ptr<Layer> localisation, std::shared_ptr<const GridGenerator> generator,
                     Boundary boundary = Boundary::zeros);
  /// With a Localisation for images of so many channels.
  SpatialTransformer(std::int64_t channels, std::shared_ptr<const GridGenerator> generator,
                     const LocalisationOptions& options, Generator& weights);

  Variable forward(const Variable& images) override;
  /// The parameters [N, P] that it would transform images by.
  Variable transformation(const Variable& images);
  const GridGenerator& generator() const { return *generator_; }

 private:
  std::unique_ptr<Layer> localisation_;
  std::shared_ptr<const GridGenerator> generator_;
  Boundary boundary_;
};

}  // namespace cinnabar
