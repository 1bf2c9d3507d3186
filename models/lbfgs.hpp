#pragma once

#include <functional>
#include <string_view>

#include "engine/tensor.hpp"

namespace cinnabar {

/// Why an optimiser stopped.
enum class StopReason {
  converged,           ///< the relative decrease over the last iterations fell below the threshold
  zero_gradient,       ///< the gradient vanished
  iteration_limit,     ///< all iterations were used
  no_acceptable_step,  ///< the line search found no feasible point that lowers the value
  interrupted,         ///< the observer asked to stop
};
std::string_view describe(StopReason reason);

/// A value of the objective. The gradient is asked for only where the line search needs it. An infeasible
/// point (a folded map, a diverged flow) has value +infinity.
struct Evaluation {
  double value = 0.0;
  std::function<Tensor()> gradient;
};

/// Progress after an accepted step.
struct LbfgsProgress {
  int iteration = 0;
  int evaluations = 0;
  double value = 0.0;
  double step = 0.0;
};

struct LbfgsOptions {
  int max_iterations = 100;
  int history = 10;
  /// Stop when the value fell by less than this share over `decrease_window` iterations.
  double relative_decrease = 1e-3;
  int decrease_window = 3;
  int max_search_evaluations = 12;    ///< of a line search that has found no lower value
  int max_refining_evaluations = 6;   ///< of one that has
  double sufficient_decrease = 1e-4;  ///< c1 of the strong Wolfe conditions
  double curvature = 0.9;             ///< c2 of the strong Wolfe conditions
  /// A trial whose slope is that many times the search's first one counts as infeasible.
  double largest_slope_growth = 20.0;
  /// So does one whose gradient is that many times as long as the search's first one.
  double largest_gradient_growth = 3.0;
};

struct LbfgsProblem {
  std::function<Evaluation(const Tensor& point)> evaluate;
  /// The initial inverse Hessian, symmetric positive definite; identity when empty.
  std::function<Tensor(const Tensor& gradient)> precondition;
  /// Length of the first step along a direction; 1 when empty.
  std::function<double(const Tensor& direction)> first_step;
  /// Called after every accepted step; false stops.
  std::function<bool(const LbfgsProgress&)> observe;
};

struct LbfgsResult {
  Tensor point;
  double first_value = 0.0;
  double value = 0.0;
  int iterations = 0;
  int evaluations = 0;
  StopReason reason = StopReason::iteration_limit;
};

/// Minimises by limited-memory BFGS with a strong-Wolfe line search (Nocedal and Wright, "Numerical
/// Optimization", 2nd ed., algorithms 7.4, 3.5 and 3.6). Values never rise. Works on tensors of any device.
/// Throws Error when the start is infeasible.
LbfgsResult minimise_lbfgs(const Tensor& start, const LbfgsProblem& problem, const LbfgsOptions& options);
/// The same where the problem has been evaluated at the start already.
LbfgsResult minimise_lbfgs(const Tensor& start, const Evaluation& first, const LbfgsProblem& problem,
                           const LbfgsOptions& options);

}  // namespace cinnabar
