#include "models/lddmm_shooting.hpp"

#include <algorithm>
#include <cmath>

#include "autograd/elementwise.hpp"
#include "autograd/epdiff.hpp"
#include "autograd/green_operator.hpp"
#include "autograd/reduce.hpp"
#include "autograd/update_inverse.hpp"
#include "autograd/warp.hpp"

namespace cinnabar {

namespace {

void check_options(const Variable& momentum, const ShootingOptions& options) {
  const Shape& shape = momentum.shape();
  CINNABAR_CHECK(shape.rank() == 5 && shape[1] == 3, "shoot", "momentum must be [N, 3, D, H, W], got ",
                 shape);
  CINNABAR_CHECK(options.time_steps >= 1, "shoot", "needs at least one time step, got ", options.time_steps);
  CINNABAR_CHECK(options.inverse_iterations >= 1, "shoot", "needs at least one inverse iteration, got ",
                 options.inverse_iterations);
}

/// A diverging flow shows first as displacements that are not finite or, on average, longer than the grid.
void check_flow(const Flow& state, int step, const ShootingOptions& options) {
  const NoGrad quiet;
  const Shape& shape = state.phi.shape();
  const auto longest = static_cast<double>(std::max({shape[2], shape[3], shape[4]}));
  const auto fits = [&](const Variable& map) {
    const double average = mean(abs(map.detach())).value().item();
    return std::isfinite(average) && average < longest;
  };
  if (fits(state.phi) && fits(state.psi)) return;
  throw DivergedFlow(detail::concat("shoot: the flow diverged in time step ", step + 1, " of ",
                                    options.time_steps, ": the momentum is too large"));
}

/// Step i as a function of (phi, psi, m0); the first step starts from the identity and K m0.
Flow step_from(int step, const Flow& state, const Variable& momentum, const ShootingOptions& options) {
  const Variable velocity = step == 0 ? smooth(momentum, options.fluid, options.padding)
                                      : geodesic_velocity(state.psi, momentum, options);
  return shooting_step(state, velocity, momentum, options);
}

}  // namespace

Flow identity_flow(const Variable& momentum) {
  return {Variable(Tensor::zeros_like(momentum.value())), Variable(Tensor::zeros_like(momentum.value()))};
}

Variable geodesic_velocity(const Variable& psi, const Variable& momentum, const ShootingOptions& options) {
  return smooth(coad(psi, momentum), options.fluid, options.padding);
}

Flow shooting_step(const Flow& state, const Variable& velocity, const Variable& momentum,
                   const ShootingOptions& options) {
  const double dt = 1.0 / options.time_steps;
  const int iterations = options.inverse_iterations;
  const auto slope_after = [&](const Variable& increment) {
    const Variable psi = update_inverse(state.psi, increment, iterations);
    const Variable v = geodesic_velocity(psi, momentum, options);
    return dt * warp(v, state.phi + increment, Boundary::zeros);
  };
  const Variable k1 = dt * warp(velocity, state.phi, Boundary::zeros);
  const Variable k2 = slope_after(0.5 * k1);
  const Variable k3 = slope_after(0.5 * k2);
  const Variable k4 = slope_after(k3);
  const Variable increment = (1.0 / 6.0) * (k1 + 2.0 * (k2 + k3) + k4);
  return {state.phi + increment, update_inverse(state.psi, increment, iterations)};
}

Flow shoot(const Variable& momentum, const ShootingOptions& options, bool checkpointed) {
  check_options(momentum, options);
  Flow state = identity_flow(momentum);
  for (int step = 0; step < options.time_steps; ++step) {
    if (checkpointed && grad_enabled()) {
      const auto segment = [step, options](const std::vector<Variable>& inputs) {
        const Flow next = step_from(step, {inputs[0], inputs[1]}, inputs[2], options);
        return std::vector<Variable>{next.phi, next.psi};
      };
      const std::vector<Variable> next = checkpoint(segment, {state.phi, state.psi, momentum});
      state = {next[0], next[1]};
    } else {
      state = step_from(step, state, momentum, options);
    }
    check_flow(state, step, options);
  }
  return state;
}

std::vector<Flow> shoot_trajectory(const Tensor& momentum, const ShootingOptions& options) {
  const NoGrad quiet;
  const Variable m0(momentum);
  check_options(m0, options);
  std::vector<Flow> states{identity_flow(m0)};
  for (int step = 0; step < options.time_steps; ++step) {
    states.push_back(step_from(step, states.back(), m0, options));
    check_flow(states.back(), step, options);
  }
  return states;
}

double smallest_jacobian(const Flow& flow) {
  const NoGrad quiet;
  const auto least = [](const Variable& map) { return amin(jacobian_determinant(map)).value().item(); };
  return std::min(least(flow.phi), least(flow.psi));
}

double squared_norm(const Tensor& momentum, const ShootingOptions& options) {
  const NoGrad quiet;
  const Variable m(momentum);
  return dot(m, smooth(m, options.fluid, options.padding)).value().item();
}

}  // namespace cinnabar
