#include "registration/quicksilver.hpp"

#include "autograd/elementwise.hpp"
#include "autograd/reduce.hpp"
#include "autograd/warp.hpp"
#include "models/sample_moments.hpp"

namespace cinnabar::registration {

namespace {

// Alive at the peak, by the storage counters: 5.7 times the largest activation of a batch, and 13 fields of
// three components in a shooting, with the images, the momentum and its flow besides.
constexpr std::size_t kActivations = 6;
constexpr std::size_t kRoundedActivations = 1;  // a copy of an operand, where a precision rounds it
constexpr std::size_t kFields = 18;

LoadedQuicksilver load(const std::filesystem::path& path, QuicksilverRole role,
                       const QuicksilverSettings& settings) {
  LoadedQuicksilver loaded = load_quicksilver(path, settings.seed, settings.precision);
  if (loaded.description.role != role) {
    const bool correction = role == QuicksilverRole::correction;
    fail_input(path.string(), ": a ", name_of(loaded.description.role), " network, not a ", name_of(role),
               " network: name it with ", correction ? "--network" : "--correction");
  }
  loaded.network->to(settings.device);
  return loaded;
}

bool same_metric(const MomentumModel& a, const MomentumModel& b) {
  const FluidOperator &x = a.fluid, &y = b.fluid;
  return x.alpha == y.alpha && x.beta == y.beta && x.gamma == y.gamma && x.power == y.power &&
         a.spacing_mm == b.spacing_mm && a.head_voxels == b.head_voxels;
}

/// Shoots the momentum; where the rule allows it, shortens it first until the flow neither diverges nor, with
/// `unfolded`, folds.
Flow shoot_feasible(MomentumPrediction& found, const ShootingOptions& shooting,
                    QuicksilverPredictor::Infeasible rule, bool unfolded) {
  constexpr double kShorter = 0.75;
  constexpr double kLeast = 0.01;
  const bool may_shorten = rule == QuicksilverPredictor::Infeasible::shortened;
  for (;;) {
    try {
      Flow flow = shoot(Variable(found.momentum), shooting);
      if (!unfolded || !may_shorten || smallest_jacobian(flow) > 0.0) return flow;
    } catch (const DivergedFlow&) {
      if (!may_shorten) {
        fail_input("the predicted momentum is too large to be shot: ",
                   "use --method quicksilver+lddmm, which shortens it and optimises on, or --method lddmm");
      }
    }
    found.kept_length *= kShorter;
    if (found.kept_length < kLeast) {
      fail_input("the predicted momentum cannot be shot at a hundredth of its length: ",
                 "the network does not suit these images; use --method lddmm");
    }
    found.momentum = scale(Variable(found.momentum), kShorter).value();
  }
}

/// Tells an observer of all patches of all samples.
PredictionOptions observed(const PredictionOptions& options, const PredictionObserver& observer,
                           const std::int64_t& total) {
  PredictionOptions result = options;
  result.observe = [&](std::int64_t done) {
    if (observer.patches) observer.patches(done, total);
  };
  return result;
}

}  // namespace

QuicksilverPredictor::QuicksilverPredictor(const QuicksilverSettings& settings)
    : settings_(settings), prediction_(load(settings.network, QuicksilverRole::prediction, settings)) {
  if (settings.correction.empty()) return;
  correction_ = load(settings.correction, QuicksilverRole::correction, settings);
  if (!same_metric(model(), correction_->description.momenta)) {
    fail_input(settings.correction.string(), ": was trained on momenta of another metric or grid than ",
               settings.network.string(), ": train both on one folder of momenta");
  }
}

std::vector<NetworkFile> QuicksilverPredictor::files() const {
  std::vector<NetworkFile> all{{"prediction", settings_.network}};
  if (correction_) all.push_back({"correction", settings_.correction});
  return all;
}

int QuicksilverPredictor::samples() const {
  return prediction_.description.network.dropout > 0.0 ? settings_.samples : 0;
}

std::size_t QuicksilverPredictor::peak_bytes(const Shape& grid) const {
  const QuicksilverOptions& network = prediction_.description.network;
  const auto voxels = static_cast<std::size_t>(grid[2] * grid[3] * grid[4]);
  const auto activations =
      static_cast<std::size_t>(settings_.patches.batch_size * 2 * network.features * network.patch.numel());
  const std::size_t copies =
      kActivations + (settings_.precision == Conv3dPrecision::fp32 ? 0 : kRoundedActivations);
  return sizeof(float) * (copies * activations + kFields * 3 * voxels);
}

void QuicksilverPredictor::draw_samples(MomentumPredictor& predictor, MomentumPrediction& result) {
  MomentAccumulator momenta, deformations;
  DeformationSamples drawn;
  for (int i = 0; i < samples(); ++i) {
    const Tensor momentum = predictor.sample();
    momenta.add(momentum);
    try {
      deformations.add(shoot(Variable(momentum), model().shooting()).psi.value());
      ++drawn.kept;
    } catch (const DivergedFlow&) {
      ++drawn.diverged;
    }
  }
  result.momentum = momenta.moments().mean.to(settings_.device);
  if (drawn.kept == 0) return;  // the mean's own shooting says what to do
  const SampleMoments moments = deformations.moments();
  drawn.mean = moments.mean;
  drawn.variance = sum(Variable(moments.variance), {1}, true).value();
  result.samples = drawn;
}

MomentumPrediction QuicksilverPredictor::predict(const ImagePair& pair, Infeasible rule,
                                                 const PredictionObserver& observer) {
  const NoGrad quiet;
  const auto announce = [&](const char* stage) {
    if (observer.stage) observer.stage(stage);
  };
  MomentumPrediction result;
  std::int64_t total = 0;
  const PredictionOptions patches = observed(settings_.patches, observer, total);

  announce("prediction");
  MomentumPredictor predictor(*prediction_.network, pair.moving, pair.fixed, patches);
  result.patches = predictor.patches();
  total = result.patches * std::max(1, samples());
  if (samples() > 0) {
    draw_samples(predictor, result);
  } else {
    result.momentum = predictor.predict();
  }
  result.corrections = correction_ ? settings_.corrections : 0;
  for (int k = 0; k < result.corrections; ++k) {
    const Flow flow = shoot_feasible(result, model().shooting(), rule, false);
    announce("correction");
    const Tensor unwarped = warp(Variable(pair.fixed), flow.phi, Boundary::border).value();
    MomentumPredictor corrector(*correction_->network, pair.moving, unwarped, patches);
    total = corrector.patches();
    result.momentum = add(Variable(result.momentum), Variable(corrector.predict())).value();
  }
  announce("shooting");
  result.flow = shoot_feasible(result, model().shooting(), rule, true);
  return result;
}

}  // namespace cinnabar::registration
