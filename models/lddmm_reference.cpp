// The optimise-then-discretise gradient of the reference (PyCA's CAvmMatching). Adjoints are Lagrangian
// (m~, I~, fixed at t = 0) and are pulled to time t where the equation needs them (m^, I^).

#include <cmath>

#include "autograd/elementwise.hpp"
#include "autograd/epdiff.hpp"
#include "autograd/green_operator.hpp"
#include "autograd/reduce.hpp"
#include "autograd/update_inverse.hpp"
#include "autograd/warp.hpp"
#include "models/lddmm_matching.hpp"

namespace cinnabar {

namespace {

/// What the right-hand side needs at one time; identical for all adjoint momenta at that time.
struct AdjointState {
  Flow flow;
  bool at_start = false;  ///< t = 0: the maps are the identity and nothing is sampled
  Variable momentum;      ///< m(t)
  Variable velocity;      ///< K m(t)
  Variable image_force;   ///< I^ grad I
};

/// The state at a time with I^ given: at t = 1 it is the residual itself, at t = 0 it is I~.
AdjointState state_with(const Variable& image_hat, const Flow& flow, bool at_start, const ImagePair& pair,
                        const Variable& m0, const ShootingOptions& options) {
  AdjointState state{flow, at_start, m0, {}, {}};
  Variable image(pair.moving);
  if (!at_start) {
    state.momentum = coad(flow.psi, m0);
    image = warp(image, flow.psi, Boundary::border);
  }
  state.velocity = smooth(state.momentum, options.fluid, options.padding);
  state.image_force = image_hat * image_gradient(image);
  return state;
}

/// The state at a time in between: I^ = Splat(phi, I~).
AdjointState state_at(const Variable& adjoint_image, const Flow& flow, const ImagePair& pair,
                      const Variable& m0, const ShootingOptions& options) {
  return state_with(splat(adjoint_image, flow.phi, Boundary::zeros), flow, false, pair, m0, options);
}

/// d m~ / dt = (Dv m^ + v^) o phi with v^ = K(I^ grad I - CoAdInf(m^, m)).
Variable adjoint_slope(const AdjointState& state, const Variable& adjoint_momentum,
                       const ShootingOptions& options) {
  const Variable hat =
      state.at_start ? adjoint_momentum : warp(adjoint_momentum, state.flow.psi, Boundary::zeros);
  const Variable force = state.image_force - coad_inf(hat, state.momentum);
  const Variable slope =
      jacobian_times_vector(state.velocity, hat) + smooth(force, options.fluid, options.padding);
  return state.at_start ? slope : warp(slope, state.flow.phi, Boundary::zeros);
}

/// The state halfway between two stored ones: phi is their mean, psi follows by update_inverse.
Flow midpoint(const Flow& before, const Flow& after, const ShootingOptions& options) {
  const Variable half = 0.5 * (after.phi - before.phi);
  return {before.phi + half, update_inverse(before.psi, half, options.inverse_iterations)};
}

}  // namespace

ReferenceGradient reference_gradient(const ImagePair& pair, const Tensor& momentum,
                                     const MatchingOptions& options) {
  CINNABAR_CHECK(options.similarity == Similarity::ssd && !options.mask.defined(), "reference_gradient",
                 "is defined for the unmasked SSD only");
  CINNABAR_CHECK(pair.fixed.shape().with(1, 3) == momentum.shape(), "reference_gradient",
                 "is defined for images on the momentum's grid only");
  const NoGrad quiet;
  const ShootingOptions& shooting = options.shooting;
  const std::vector<Flow> states = shoot_trajectory(momentum, shooting);
  const Variable m0(momentum);
  const double variance = options.sigma * options.sigma;

  ReferenceGradient result;
  result.flow = states.back();
  const Variable difference =
      warp(Variable(pair.moving), result.flow.psi, Boundary::border) - Variable(pair.fixed);
  const Variable residual = (1.0 / variance) * difference;
  const Variable adjoint_image = splat(-residual, result.flow.psi, Boundary::zeros);

  const double dt = -1.0 / shooting.time_steps;
  Variable adjoint(Tensor::zeros_like(momentum));
  AdjointState now = state_with(-residual, result.flow, false, pair, m0, shooting);
  for (std::size_t i = states.size() - 1; i > 0; --i) {
    const Flow& before = states[i - 1];
    const AdjointState middle =
        state_at(adjoint_image, midpoint(before, states[i], shooting), pair, m0, shooting);
    const AdjointState next = i == 1 ? state_with(adjoint_image, before, true, pair, m0, shooting)
                                     : state_at(adjoint_image, before, pair, m0, shooting);
    const Variable k1 = dt * adjoint_slope(now, adjoint, shooting);
    const Variable k2 = dt * adjoint_slope(middle, adjoint + 0.5 * k1, shooting);
    const Variable k3 = dt * adjoint_slope(middle, adjoint + 0.5 * k2, shooting);
    const Variable k4 = dt * adjoint_slope(next, adjoint + k3, shooting);
    adjoint = adjoint + (1.0 / 6.0) * (k1 + 2.0 * (k2 + k3) + k4);
    now = next;
  }

  const Variable smoothed = now.velocity;  // K m0
  result.energy.regularity = 0.5 * dot(m0, smoothed).value().item();
  result.energy.data = 0.5 / variance * dot(difference, difference).value().item();
  result.gradient = (smoothed - adjoint).value();
  result.adjoint_momentum = adjoint.value();
  result.adjoint_image = adjoint_image.value();
  result.residual = residual.value();
  return result;
}

DescentResult descend_fixed_step(const ImagePair& pair, const Tensor& start, const MatchingOptions& options,
                                 double step, int iterations) {
  const NoGrad quiet;
  DescentResult result{start.clone(), {}};
  for (int i = 0; i < iterations; ++i) {
    try {
      const ReferenceGradient at = reference_gradient(pair, result.momentum, options);
      result.energies.push_back(at.energy);
      result.momentum = (Variable(result.momentum) - step * Variable(at.gradient)).value();
    } catch (const DivergedFlow& error) {
      throw DivergedFlow(detail::concat("fixed-step descent diverged in iteration ", i + 1, ": ",
                                        error.what(), "; use a step below ", step));
    }
  }
  return result;
}

}  // namespace cinnabar
