#include "layers/spatial_transformer.hpp"

#include "autograd/grid_sample.hpp"
#include "autograd/layout.hpp"
#include "layers/activation.hpp"
#include "layers/conv3d.hpp"
#include "layers/linear.hpp"

namespace cinnabar {

Variable transformed(const Variable& images, const GridGenerator& generator, const Variable& parameters,
                     Boundary boundary) {
  const bool flat = generator.dims() == 2 && images.shape().rank() == 5;
  CINNABAR_CHECK(!flat || images.shape()[2] == 1, "transformed",
                 "a 2-D transformation needs volumes of depth 1, got ", images.value());
  const Variable pixels = flat ? squeeze(images, 2) : images;
  const Shape& shape = pixels.shape();
  CINNABAR_CHECK(shape.rank() == generator.dims() + 2 && shape.without(0).without(0) == generator.spatial(),
                 "transformed", "a transformation of extents ", generator.spatial(), " does not fit images ",
                 images.value());
  const Variable result =
      grid_sample(pixels, generator.grid(parameters), {.boundary = boundary, .align_corners = true});
  return flat ? unsqueeze(result, 2) : result;
}

Localisation::Localisation(std::int64_t channels, const Shape& spatial, std::int64_t parameters,
                           const LocalisationOptions& options, Generator& generator) {
  const bool flat = spatial.rank() == 2;
  std::int64_t in = channels;
  Shape extents = spatial;
  for (const std::int64_t out : options.channels) {
    features_.add<Conv3dLayer>(in, out, flat ? conv_squares(3, 1, 2) : conv_cubes(3, 1, 2), generator);
    features_.add<PRelu>();
    in = out;
    for (int axis = 0; axis < extents.rank(); ++axis) extents = extents.with(axis, (extents[axis] + 1) / 2);
  }
  head_.add<Linear>(in * extents.numel(), options.hidden, generator);
  head_.add<PRelu>();
  Linear& last = head_.add<Linear>(options.hidden, parameters, generator);
  for (Variable* start : {&last.weight, &last.bias}) start->set_value(Tensor::zeros(start->shape()));
  add_child("features", features_);
  add_child("head", head_);
}

Variable Localisation::forward(const Variable& images) {
  const Variable volumes = images.shape().rank() == 4 ? unsqueeze(images, 2) : images;
  return head_(reshape(features_(volumes), {images.shape()[0], -1}));
}

SpatialTransformer::SpatialTransformer(std::unique_ptr<Layer> localisation,
                                       std::shared_ptr<const GridGenerator> generator, Boundary boundary)
    : localisation_(std::move(localisation)), generator_(std::move(generator)), boundary_(boundary) {
  CINNABAR_CHECK(localisation_ != nullptr && generator_ != nullptr, "spatial_transformer",
                 "needs a localisation network and a grid generator");
  add_child("localisation", *localisation_);
}

SpatialTransformer::SpatialTransformer(std::int64_t channels, std::shared_ptr<const GridGenerator> generator,
                                       const LocalisationOptions& options, Generator& weights)
    : SpatialTransformer(std::make_unique<Localisation>(channels, generator->spatial(),
                                                        generator->parameter_count(), options, weights),
                         generator) {}

Variable SpatialTransformer::transformation(const Variable& images) {
  return localisation_->forward(images);
}

Variable SpatialTransformer::forward(const Variable& images) {
  return transformed(images, *generator_, transformation(images), boundary_);
}

}  // namespace cinnabar
