#include "models/quicksilver_energy_training.hpp"

#include <algorithm>

#include "autograd/elementwise.hpp"
#include "autograd/green_operator.hpp"
#include "autograd/layout.hpp"
#include "autograd/patches.hpp"
#include "autograd/reduce.hpp"
#include "autograd/warp.hpp"
#include "data/patch_grid.hpp"
#include "engine/random.hpp"

namespace cinnabar {

namespace {

constexpr const char* kOp = "quicksilver_energy_training";
constexpr double kFirstLossScale = 1.0;
constexpr std::uint64_t kViews = std::uint64_t{0x76696577} << 32;  // a stream of the seed

/// Calls fn with the momentum, shortened until that does not diverge.
template <class Function>
auto shortened_until(const Variable& momentum, const Function& fn) {
  constexpr double kShorter = 0.75;
  constexpr double kLeast = 0.01;
  for (double length = 1.0;; length *= kShorter) {
    try {
      return fn(length == 1.0 ? momentum : length * momentum);
    } catch (const DivergedFlow&) {
      if (length < kLeast) throw;
    }
  }
}

}  // namespace

QuicksilverEnergyTraining::QuicksilverEnergyTraining(Quicksilver& network, VolumeSet training,
                                                     std::optional<VolumeSet> validation,
                                                     const QuicksilverEnergyOptions& options,
                                                     Quicksilver* prediction)
    : PairTraining(network, std::move(training), std::move(validation), options,
                   network.options().precision == Conv3dPrecision::fp16 ? kFirstLossScale : 0.0),
      network_(network),
      prediction_(prediction),
      options_(options) {
  CINNABAR_CHECK(options.stride >= 1, kOp, "patches cannot lie at a distance of ", options.stride);
  CINNABAR_CHECK(options.velocity == 0.0 || !options.draws.swap, kOp,
                 "exchanged pairs have no momenta to come near to");
  if (prediction) prediction->eval();
}

QuicksilverEnergyTraining::View QuicksilverEnergyTraining::view_of(std::optional<std::int64_t> draw) const {
  if (!draw) {
    const std::int64_t near = std::max<std::int64_t>(1, options_.stride * 2 / 3);
    return {{near, near, near}, 0};
  }
  const PhiloxWords words = philox_4x32_10(options_.draws.seed, kViews, static_cast<std::uint64_t>(*draw));
  const std::int64_t choices = options_.stride / 3 + 1;
  const auto distance = [&](std::size_t axis) {
    return options_.stride - static_cast<std::int64_t>(words.word[axis]) % choices;
  };
  return {{distance(0), distance(1), distance(2)}, static_cast<int>(words.word[3] & 1u)};
}

Variable QuicksilverEnergyTraining::predicted(Quicksilver& network, const ImagePair& pair,
                                              const Shape& stride) const {
  const Shape& patch = network.options().patch;
  const Shape& shape = pair.fixed.shape();
  const Tensor grid = grid_starts({shape[2], shape[3], shape[4]}, {patch, stride});
  const Tensor starts = foreground_starts({pair.moving, pair.fixed}, grid, patch).to(device());
  if (starts.shape(0) == 0) fail_input("a pair to train on is all background");
  const Variable images = concat({Variable(pair.moving), Variable(pair.fixed)}, 1);
  return scatter_patches(network(gather_patches(images, starts, patch)), starts, shape.with(1, 3));
}

Variable QuicksilverEnergyTraining::momentum_of(const ImagePair& pair, const View& view) {
  if (prediction_ == nullptr) return predicted(network_, pair, view.stride);
  const auto unwarped = [&](const Variable& momentum) {
    return shortened_until(momentum, [&](const Variable& shorter) {
      const Flow flow = shoot(shorter, options_.matching.shooting);
      return ImagePair{pair.moving, warp(Variable(pair.fixed), flow.phi, Boundary::border).value()};
    });
  };
  Variable momentum;
  ImagePair seen;
  {
    const NoGrad quiet;
    momentum = predicted(*prediction_, pair, view.stride);
    seen = unwarped(momentum);
    for (int k = 0; k < view.corrections; ++k) {
      momentum = momentum + predicted(network_, seen, view.stride);
      seen = unwarped(momentum);
    }
  }
  return momentum + predicted(network_, seen, view.stride);
}

Training::BatchLoss QuicksilverEnergyTraining::pair_loss(const Batch& images,
                                                         std::optional<std::int64_t> draw) {
  const ImagePair pair = image_pair(images, device());
  const MatchingOptions& matching = options_.matching;
  const Variable momentum = momentum_of(pair, view_of(draw));
  Variable loss = shortened_until(
      momentum, [&](const Variable& shot) { return matching_terms(pair, shot, matching).total(); });
  Variable zero;
  {
    const NoGrad quiet;
    zero = matching_data(Variable(pair.moving), pair, matching);
  }
  if (options_.velocity > 0.0) {
    const Variable target(images.at("momentum").to(device()));
    const auto distance = [&](const Variable& residual) {
      return options_.velocity * sum(square(smooth(residual, matching.shooting.fluid, FftPadding::fast)));
    };
    loss = loss + distance(momentum - target);
    zero = zero + distance(target);
  }
  return {loss, zero.value(), 1.0};
}

}  // namespace cinnabar
