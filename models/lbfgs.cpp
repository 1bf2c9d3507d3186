#include "models/lbfgs.hpp"

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <optional>
#include <vector>

#include "autograd/reduce.hpp"
#include "kernels/elementwise.hpp"

namespace cinnabar {

namespace {

double inner(const Tensor& a, const Tensor& b) {
  const NoGrad quiet;
  return dot(Variable(a), Variable(b)).value().item();
}

void axpy(double alpha, const Tensor& x, Tensor& y) {
  elementwise_on(x.device()).axpy(alpha, x, y);
}

Tensor moved(const Tensor& point, double step, const Tensor& direction) {
  Tensor result = point.clone();
  axpy(step, direction, result);
  return result;
}

/// Curvature pairs of the last steps and the two-loop recursion over them.
class InverseHessian {
 public:
  InverseHessian(const LbfgsProblem& problem, int limit) : problem_(problem), limit_(limit) {}

  /// Keeps a pair unless it would make the approximation indefinite.
  void add(Tensor s, Tensor y) {
    const double sy = inner(s, y);
    if (!(sy > 1e-10 * std::sqrt(inner(s, s) * inner(y, y)))) return;
    scale_ = sy / inner(y, preconditioned(y));
    pairs_.push_back({std::move(s), std::move(y), 1.0 / sy});
    if (static_cast<int>(pairs_.size()) > limit_) pairs_.pop_front();
  }

  bool empty() const { return pairs_.empty(); }
  void forget() { pairs_.clear(); }

  Tensor descent(const Tensor& gradient) const {
    Tensor q = gradient.clone();
    std::vector<double> alpha(pairs_.size());
    for (std::size_t i = pairs_.size(); i-- > 0;) {
      alpha[i] = pairs_[i].rho * inner(pairs_[i].s, q);
      axpy(-alpha[i], pairs_[i].y, q);
    }
    const Tensor r = preconditioned(q);
    Tensor direction = Tensor::zeros_like(r);
    axpy(pairs_.empty() ? -1.0 : -scale_, r, direction);
    for (std::size_t i = 0; i < pairs_.size(); ++i) {
      const double beta = pairs_[i].rho * inner(pairs_[i].y, direction);
      axpy(-alpha[i] - beta, pairs_[i].s, direction);
    }
    return direction;
  }

 private:
  struct Pair {
    Tensor s, y;
    double rho;
  };

  Tensor preconditioned(const Tensor& x) const {
    return problem_.precondition ? problem_.precondition(x) : x;
  }

  const LbfgsProblem& problem_;
  int limit_;
  double scale_ = 1.0;
  std::deque<Pair> pairs_;
};

/// A trial of the line search: the objective along the ray.
struct Trial {
  double step = 0.0;
  double value = std::numeric_limits<double>::infinity();
  double slope = 0.0;
  double squared_gradient = 0.0;
  Tensor point, gradient;
};

/// Minimiser of the cubic through two trials, kept inside the middle 80 % of their bracket.
double interpolate(const Trial& a, const Trial& b) {
  const double low = std::min(a.step, b.step), high = std::max(a.step, b.step), width = high - low;
  if (!std::isfinite(a.value) || !std::isfinite(b.value)) return 0.5 * (low + high);
  const bool b_has_slope = b.gradient.defined();
  double step = 0.0;
  const double h = b.step - a.step;
  if (b_has_slope) {
    const double d1 = a.slope + b.slope - 3.0 * (b.value - a.value) / h;
    const double root = d1 * d1 - a.slope * b.slope;
    if (root < 0.0) return 0.5 * (low + high);
    const double d2 = std::copysign(std::sqrt(root), h);
    step = b.step - h * (b.slope + d2 - d1) / (b.slope - a.slope + 2.0 * d2);
  } else {
    step = a.step - 0.5 * a.slope * h * h / (b.value - a.value - a.slope * h);
  }
  if (!std::isfinite(step)) return 0.5 * (low + high);
  return std::clamp(step, low + 0.1 * width, high - 0.1 * width);
}

class LineSearch {
 public:
  LineSearch(const LbfgsProblem& problem, const LbfgsOptions& options, Trial origin, Tensor direction)
      : problem_(problem), options_(options), origin_(std::move(origin)), direction_(std::move(direction)) {
    origin_.step = 0.0;  // it may be the end of an earlier search
  }

  /// A point that satisfies the strong Wolfe conditions, or the best that lowers the value, or nothing.
  std::optional<Trial> run(double first_step) {
    Trial previous = origin_;
    double step = first_step;
    while (evaluations_ < limit()) {
      Trial trial = evaluate(step);
      if (!lowers_enough(trial) || (evaluations_ > 1 && trial.value >= previous.value) ||
          !take_slope(trial)) {
        return zoom(previous, trial);
      }
      if (flat_enough(trial)) return trial;
      if (trial.slope >= 0.0) return zoom(trial, previous);
      previous = trial;
      step = std::min(2.5 * step, step + 4.0 * first_step);
    }
    return best();
  }

  int evaluations() const { return evaluations_; }

 private:
  /// Narrows a bracket whose `low` end has the smaller value and a gradient.
  std::optional<Trial> zoom(Trial low, Trial high) {
    while (evaluations_ < limit()) {
      // In front of infeasible points a decrease is enough: a flat slope may lie beyond them.
      if (low.step > 0.0 && !std::isfinite(high.value)) return low;
      Trial trial = evaluate(interpolate(low, high));
      if (!lowers_enough(trial) || trial.value >= low.value || !take_slope(trial)) {
        high = trial;
      } else {
        if (flat_enough(trial)) return trial;
        if (trial.slope * (high.step - low.step) >= 0.0) high = low;
        low = trial;
      }
    }
    return best();
  }

  Trial evaluate(double step) {
    ++evaluations_;
    Trial trial;
    trial.step = step;
    trial.point = moved(origin_.point, step, direction_);
    Evaluation evaluation = problem_.evaluate(trial.point);
    trial.value =
        std::isfinite(evaluation.value) ? evaluation.value : std::numeric_limits<double>::infinity();
    pending_gradient_ = std::move(evaluation.gradient);
    return trial;
  }

  /// Takes the gradient at a trial. False, with the trial made infeasible, where the gradient or its slope
  /// grew out of all proportion: the objective is chaotic there (a flow its time steps no longer resolve),
  /// and no quasi-Newton step would ever lead away from it.
  bool take_slope(Trial& trial) {
    trial.gradient = pending_gradient_();
    trial.slope = inner(trial.gradient, direction_);
    trial.squared_gradient = inner(trial.gradient, trial.gradient);
    const double growth = std::sqrt(trial.squared_gradient / origin_.squared_gradient);
    if (!(std::abs(trial.slope) <= options_.largest_slope_growth * std::abs(origin_.slope)) ||
        !(growth <= options_.largest_gradient_growth)) {
      trial.value = std::numeric_limits<double>::infinity();
      return false;
    }
    if (trial.value < best_.value) best_ = trial;
    return true;
  }

  bool lowers_enough(const Trial& trial) const {
    return trial.value <= origin_.value + options_.sufficient_decrease * trial.step * origin_.slope;
  }
  bool flat_enough(const Trial& trial) const {
    return std::abs(trial.slope) <= options_.curvature * std::abs(origin_.slope);
  }
  bool found_lower() const { return best_.value < origin_.value; }
  int limit() const {
    return found_lower() ? options_.max_refining_evaluations : options_.max_search_evaluations;
  }
  std::optional<Trial> best() const {
    if (found_lower()) return best_;
    return std::nullopt;
  }

  const LbfgsProblem& problem_;
  const LbfgsOptions& options_;
  Trial origin_;
  Tensor direction_;
  Trial best_;
  std::function<Tensor()> pending_gradient_;
  int evaluations_ = 0;
};

bool decreased_too_little(const std::vector<double>& values, const LbfgsOptions& options) {
  const auto window = static_cast<std::size_t>(options.decrease_window);
  if (values.size() <= window) return false;
  const double before = values[values.size() - 1 - window], now = values.back();
  return before - now <= options.relative_decrease * std::abs(before);
}

}  // namespace

std::string_view describe(StopReason reason) {
  switch (reason) {
    case StopReason::converged:
      return "converged";
    case StopReason::zero_gradient:
      return "zero gradient";
    case StopReason::iteration_limit:
      return "iteration limit";
    case StopReason::no_acceptable_step:
      return "no acceptable step";
    case StopReason::interrupted:
      return "interrupted";
  }
  fail("describe", "unknown stop reason");
}

LbfgsResult minimise_lbfgs(const Tensor& start, const LbfgsProblem& problem, const LbfgsOptions& options) {
  return minimise_lbfgs(start, problem.evaluate(start), problem, options);
}

LbfgsResult minimise_lbfgs(const Tensor& start, const Evaluation& first, const LbfgsProblem& problem,
                           const LbfgsOptions& options) {
  LbfgsResult result;
  CINNABAR_CHECK(std::isfinite(first.value), "lbfgs", "the starting point is infeasible");
  Trial now{.value = first.value, .point = start, .gradient = {}};
  if (options.max_iterations > 0) {
    now.gradient = first.gradient();
    now.squared_gradient = inner(now.gradient, now.gradient);
  }
  result.evaluations = 1;
  result.first_value = now.value;
  std::vector<double> values{now.value};
  InverseHessian inverse_hessian(problem, options.history);

  for (; result.iterations < options.max_iterations; ++result.iterations) {
    if (now.squared_gradient == 0.0) {
      result.reason = StopReason::zero_gradient;
      break;
    }
    Tensor direction = inverse_hessian.descent(now.gradient);
    now.slope = inner(now.gradient, direction);
    if (!(now.slope < 0.0)) {
      result.reason = StopReason::no_acceptable_step;
      break;
    }
    const bool scaled = !inverse_hessian.empty();
    const double first_step = scaled || !problem.first_step ? 1.0 : problem.first_step(direction);
    LineSearch search(problem, options, now, direction);
    const std::optional<Trial> found = search.run(first_step);
    result.evaluations += search.evaluations();
    if (!found && scaled) {  // the curvature model misled: once more along steepest descent
      inverse_hessian.forget();
      --result.iterations;
      continue;
    }
    if (!found) {
      result.reason = StopReason::no_acceptable_step;
      break;
    }
    Tensor y = found->gradient.clone();
    axpy(-1.0, now.gradient, y);
    inverse_hessian.add(moved(found->point, -1.0, now.point), std::move(y));
    now = *found;
    values.push_back(now.value);
    const LbfgsProgress progress{result.iterations + 1, result.evaluations, now.value, now.step};
    if (problem.observe && !problem.observe(progress)) {
      result.reason = StopReason::interrupted;
      ++result.iterations;
      break;
    }
    if (decreased_too_little(values, options)) {
      result.reason = StopReason::converged;
      ++result.iterations;
      break;
    }
  }
  result.point = now.point;
  result.value = now.value;
  return result;
}

}  // namespace cinnabar
