#include "models/voxelmorph.hpp"

#include "autograd/elementwise.hpp"
#include "autograd/layout.hpp"
#include "autograd/losses.hpp"
#include "autograd/upsample.hpp"
#include "autograd/warp.hpp"
#include "layers/field_warp.hpp"

namespace cinnabar {

namespace {

constexpr const char* kOp = "voxelmorph";
constexpr double kOutputScale = 1e-3;

UnetOptions unet_options(const VoxelmorphOptions& options) {
  CINNABAR_CHECK(options.features >= 1 && options.levels >= 2, kOp, "needs features and two levels, got ",
                 options.features, " and ", options.levels);
  UnetOptions unet;
  unet.in = 2;
  unet.out = 3;
  unet.encoder.assign(static_cast<std::size_t>(options.levels), 2 * options.features);
  unet.encoder.front() = options.features;
  unet.convolutions = options.convolutions;
  unet.output_level = options.half_resolution ? 1 : 0;
  unet.output_scale = kOutputScale;
  unet.seed = options.seed;
  return unet;
}

Shape spatial_of(const Variable& field) {
  const Shape& shape = field.shape();
  return {shape[2], shape[3], shape[4]};
}

/// A field in voxels of a grid of half the resolution, whose voxel i covers 2 i and 2 i + 1, in those of the
/// fine grid.
Variable at_twice_the_resolution(const Variable& field, const Shape& spatial) {
  if (spatial_of(field) == spatial) return field;
  for (int axis = 0; axis < 3; ++axis) {
    CINNABAR_CHECK(field.shape()[axis + 2] == (spatial[axis] + 1) / 2, kOp, "a field ", field.value(),
                   " is no half of ", spatial);
  }
  const Variable larger = scale(upsample_by(field, {2.0, 2.0, 2.0}), 2.0);
  return slice(larger, {{}, {}, {0, spatial[0]}, {0, spatial[1]}, {0, spatial[2]}});
}

}  // namespace

std::int64_t voxelmorph_weights(const VoxelmorphOptions& options) {
  constexpr std::int64_t kTaps = 27;
  const UnetOptions unet = unet_options(options);
  const std::vector<std::int64_t>& widths = unet.encoder;
  std::int64_t total = 0, channels = unet.in;
  const auto add_level = [&](std::int64_t in, std::int64_t out) {
    total += (kTaps * in + 1) * out + (unet.convolutions - 1) * (kTaps * out + 1) * out;
    channels = out;
  };
  for (const std::int64_t width : widths) add_level(channels, width);
  for (std::size_t level = widths.size() - 1; level-- > static_cast<std::size_t>(unet.output_level);) {
    add_level(channels + widths[level], widths[level]);
  }
  return total + (channels + 1) * unet.out;
}

Voxelmorph::Voxelmorph(const VoxelmorphOptions& options) : options_(options), unet_(unet_options(options)) {
  add_child("unet", unet_);
}

Variable Voxelmorph::velocity(const Variable& moving, const Variable& fixed) {
  CINNABAR_CHECK(moving.shape().rank() == 5 && moving.shape()[1] == 1 && moving.shape() == fixed.shape(), kOp,
                 "takes two images [N, 1, D, H, W], got ", moving.value(), " and ", fixed.value());
  const Variable pair = concat({moving, fixed}, 1);
  if (!options_.symmetric) return unet_(pair);
  const std::int64_t n = moving.shape()[0];
  const Variable both = unet_(concat({pair, concat({fixed, moving}, 1)}, 0));
  return scale(slice(both, 0, 0, n) - slice(both, 0, n, 2 * n), 0.5);
}

Variable velocity_displacement(const Variable& velocity, const Shape& spatial, int squarings) {
  return at_twice_the_resolution(integrate_velocity(velocity, squarings), spatial);
}

Variable velocity_at(const Variable& velocity, const Shape& spatial) {
  return at_twice_the_resolution(velocity, spatial);
}

Flow velocity_flow(const Variable& velocity, const Shape& spatial, int squarings) {
  return {velocity_displacement(-velocity, spatial, squarings),
          velocity_displacement(velocity, spatial, squarings)};
}

double default_smoothness(Similarity similarity) {
  return similarity == Similarity::ssd ? 0.02 : 1.0;
}

Variable dissimilarity(const Variable& warped, const Variable& fixed, const VoxelmorphLoss& loss) {
  switch (loss.similarity) {
    case Similarity::ssd:
      return ssd(warped, fixed, {}, true);
    case Similarity::ncc:
      return ncc_loss(warped, fixed);
    case Similarity::lncc:
      return lncc_loss(warped, fixed, loss.lncc_radius);
  }
  fail(kOp, "unknown similarity");
}

Variable voxelmorph_loss(const Variable& moving, const Variable& fixed, const Variable& velocity,
                         int squarings, const VoxelmorphLoss& loss) {
  const Variable u = velocity_displacement(velocity, spatial_of(fixed), squarings);
  const Variable warped = warp(moving, u, Boundary::border);
  return dissimilarity(warped, fixed, loss) + loss.smoothness * gradient_penalty(velocity);
}

}  // namespace cinnabar
