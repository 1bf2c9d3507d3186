#pragma once

#include <vector>

#include "autograd/variable.hpp"
#include "kernels/green_operator.hpp"

namespace cinnabar {

/// A flow left the range of numbers: the momentum or the step that led to it is too large.
class DivergedFlow : public Error {
 public:
  using Error::Error;
};

/// Discretisation of a geodesic. The defaults are Quicksilver's.
struct ShootingOptions {
  FluidOperator fluid;  ///< L of the metric, in voxels of the grid
  int time_steps = 10;  ///< RK4 steps over t in [0, 1]
  /// Fixed-point iterations of each inverse update, at most. The gradient assumes that they converge.
  int inverse_iterations = 20;
  FftPadding padding = FftPadding::fast;
};

/// A diffeomorphism phi(t) and its inverse psi(t) as displacements [N, 3, D, H, W] in voxels.
struct Flow {
  Variable phi;
  Variable psi;
};

/// The identity on the grid of a momentum.
Flow identity_flow(const Variable& momentum);

/// Velocity K CoAd(psi, m0) of the geodesic at a state. At t = 0 it is K m0, without the coadjoint action.
Variable geodesic_velocity(const Variable& psi, const Variable& momentum, const ShootingOptions& options);

/// One RK4 step of d phi / dt = v o phi with v = K CoAd(psi, m0); psi follows by update_inverse. `velocity`
/// is geodesic_velocity at `state`.
Flow shooting_step(const Flow& state, const Variable& velocity, const Variable& momentum,
                   const ShootingOptions& options);

/// Shoots the geodesic of an initial momentum [N, 3, D, H, W] to t = 1 (EPDiff in coadjoint form; Singh et
/// al., ISBI 2013; discretisation of PyCA). Differentiable: the gradient is the exact one of the discrete
/// scheme. With `checkpointed`, only the states between steps are kept and each step is recomputed in
/// backward. Throws DivergedFlow with the time step at which the flow left the range of numbers.
Flow shoot(const Variable& momentum, const ShootingOptions& options, bool checkpointed = true);

/// The states at t = 0, 1/N, ..., 1, with no graph.
std::vector<Flow> shoot_trajectory(const Tensor& momentum, const ShootingOptions& options);

/// The least determinant of D phi and D psi on the grid: at or below zero the map folds.
double smallest_jacobian(const Flow& flow);

/// <m, K m>, the squared norm of the initial velocity, which the geodesic conserves.
double squared_norm(const Tensor& momentum, const ShootingOptions& options);

}  // namespace cinnabar
