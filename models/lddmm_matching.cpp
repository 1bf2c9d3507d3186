#include "models/lddmm_matching.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "autograd/elementwise.hpp"
#include "autograd/epdiff.hpp"
#include "autograd/green_operator.hpp"
#include "autograd/reduce.hpp"
#include "autograd/similarity.hpp"
#include "autograd/upsample.hpp"
#include "autograd/warp.hpp"

namespace cinnabar {

namespace {

constexpr double kFirstStepVoxels = 0.5;

/// Variance of the fixed image under the mask: it brings 1 - NCC to the range of the SSD.
double variance(const Tensor& image, const Tensor& mask) {
  const NoGrad quiet;
  const Variable x(image);
  const Variable weight(mask.defined() ? mask
                                       : Tensor::full(image.shape(), 1.0, image.dtype(), image.device()));
  const double total = sum(weight).value().item();
  const double mean = sum(weight * x).value().item() / total;
  return sum(weight * x * x).value().item() / total - mean * mean;
}

/// Penalty of the voxels whose determinant lies below the floor.
Variable folding_term(const Variable& determinant, const MatchingOptions& options) {
  const double weight =
      1.0 / (options.jacobian_floor * options.jacobian_floor * options.sigma * options.sigma);
  return weight * sum(square(relu(options.jacobian_floor - determinant)));
}

double least(const Variable& determinant) {
  const NoGrad quiet;
  return amin(determinant.detach()).value().item();
}

}  // namespace

std::string name_of(Similarity similarity) {
  switch (similarity) {
    case Similarity::ssd:
      return "ssd";
    case Similarity::ncc:
      return "ncc";
    case Similarity::lncc:
      return "lncc";
  }
  fail("name_of", "unknown similarity");
}

Similarity similarity_named(const std::string& name) {
  for (const Similarity similarity : {Similarity::ssd, Similarity::ncc, Similarity::lncc}) {
    if (name == name_of(similarity)) return similarity;
  }
  fail_input("the similarity is not ssd, ncc or lncc");
}

Variable matching_data(const Variable& warped, const ImagePair& pair, const MatchingOptions& options) {
  const Variable fixed(pair.fixed);
  const double weight = 0.5 / (options.sigma * options.sigma);
  if (options.similarity == Similarity::ssd) return weight * ssd(warped, fixed, options.mask);
  const double voxels = options.mask.defined() ? sum(Variable(options.mask)).value().item()
                                               : static_cast<double>(pair.fixed.numel());
  // A loss l in [0, 2] counts as SSD would for images that differ by noise of that correlation:
  // sum r^2 = 2 n var (1 - ncc).
  const double scale = weight * 2.0 * voxels * variance(pair.fixed, options.mask);
  return scale * (options.similarity == Similarity::ncc
                      ? ncc_loss(warped, fixed, options.mask)
                      : lncc_loss(warped, fixed, options.lncc_radius, options.mask));
}

std::int64_t image_factor(const Shape& momentum, const Shape& images) {
  CINNABAR_CHECK(images.rank() == 5 && images[0] == 1 && images[1] == 1, "match",
                 "images must be [1, 1, D, H, W], got ", images);
  CINNABAR_CHECK(momentum.rank() == 5 && momentum[0] == 1 && momentum[1] == 3, "match",
                 "momentum must be [1, 3, D, H, W], got ", momentum);
  const std::int64_t factor = images[4] / momentum[4];
  const Shape fitting{1, 1, factor * momentum[2], factor * momentum[3], factor * momentum[4]};
  CINNABAR_CHECK(factor >= 1 && images == fitting, "match", "momentum of shape ", momentum,
                 " does not fit images of shape ", images);
  return factor;
}

Flow refined(const Flow& flow, std::int64_t factor) {
  if (factor == 1) return flow;
  const auto times = static_cast<double>(factor);
  const auto refine = [&](const Variable& map) { return times * upsample_by(map, {times, times, times}); };
  return {refine(flow.phi), refine(flow.psi)};
}

Variable MatchingTerms::total() const {
  return regularity + data + folding;
}

MatchingTerms matching_terms(const ImagePair& pair, const Variable& momentum,
                             const MatchingOptions& options) {
  require_same_shape("match", pair.moving, pair.fixed);
  const std::int64_t factor = image_factor(momentum.shape(), pair.fixed.shape());
  const double share = 1.0 / static_cast<double>(factor * factor * factor);
  const ShootingOptions& shooting = options.shooting;
  MatchingTerms terms;
  terms.flow = refined(shoot(momentum, shooting, options.checkpointed), factor);
  terms.regularity = 0.5 * dot(momentum, smooth(momentum, shooting.fluid, shooting.padding));
  terms.data =
      share * matching_data(warp(Variable(pair.moving), terms.flow.psi, Boundary::border), pair, options);
  terms.of_phi = jacobian_determinant(terms.flow.phi);
  terms.of_psi = jacobian_determinant(terms.flow.psi);
  terms.folding = share * (folding_term(terms.of_phi, options) + folding_term(terms.of_psi, options));
  return terms;
}

MatchingEvaluation evaluate_matching(const ImagePair& pair, const Tensor& momentum,
                                     const MatchingOptions& options) {
  const Variable m0(momentum, true);
  const MatchingTerms terms = matching_terms(pair, m0, options);
  const Variable energy = terms.total();

  MatchingEvaluation result;
  result.energy = {terms.regularity.value().item(), terms.data.value().item(), terms.folding.value().item()};
  result.smallest_jacobian = std::min(least(terms.of_phi), least(terms.of_psi));
  result.flow = {terms.flow.phi.detach(), terms.flow.psi.detach()};
  result.gradient = [m0, energy] {
    energy.backward();
    return m0.grad();
  };
  return result;
}

LbfgsResult match(const ImagePair& pair, const Tensor& start, const MatchingOptions& options,
                  const LbfgsOptions& lbfgs, const std::function<bool(const LbfgsProgress&)>& observe) {
  const ShootingOptions& shooting = options.shooting;
  LbfgsProblem problem;
  problem.evaluate = [&](const Tensor& momentum) -> Evaluation {
    try {
      MatchingEvaluation point = evaluate_matching(pair, momentum, options);
      if (point.smallest_jacobian > 0.0) return {point.energy.total(), std::move(point.gradient)};
    } catch (const DivergedFlow&) {
    }
    return {std::numeric_limits<double>::infinity(), {}};
  };
  // How softly was chosen on pairs of brains (docs/results.md): local correlation needs less of it, until
  // searches end in front of folds.
  constexpr double kSoftest = 1.0 / 4;
  double softening = options.similarity == Similarity::lncc ? kSoftest / 4 : kSoftest;
  problem.precondition = [&](const Tensor& gradient) {
    const NoGrad quiet;
    FluidOperator metric = shooting.fluid;
    metric.gamma = std::max(metric.gamma, softening * metric.alpha);
    return sharpen(Variable(gradient), metric, shooting.padding).value();
  };
  problem.first_step = [&](const Tensor& direction) {
    const NoGrad quiet;
    const Variable velocity = smooth(Variable(direction), shooting.fluid, shooting.padding);
    return kFirstStepVoxels / std::max(amax(abs(velocity)).value().item(), 1e-12);
  };
  int evaluations = 1;
  problem.observe = [&](const LbfgsProgress& progress) {
    constexpr int kLongSearch = 3;
    if (progress.evaluations - evaluations > kLongSearch) softening = kSoftest;
    evaluations = progress.evaluations;
    return !observe || observe(progress);
  };

  // A coarse solution can fold when it is carried to a finer grid: shorten it until it does not.
  constexpr int kAttempts = 8;
  Tensor momentum = start;
  Evaluation first = problem.evaluate(momentum);
  for (int i = 0; i < kAttempts && !std::isfinite(first.value); ++i) {
    momentum = (0.8 * Variable(momentum)).value();
    first = problem.evaluate(momentum);
  }
  if (!std::isfinite(first.value)) {
    fail_input("matching cannot start: the energy of its first map is not finite, or that map folds; ",
               "check sigma, alpha, beta and gamma");
  }
  return minimise_lbfgs(momentum, first, problem, lbfgs);
}

}  // namespace cinnabar
