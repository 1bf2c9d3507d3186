#include "models/lbfgs.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <vector>

namespace cinnabar {
namespace {

/// Rosenbrock's valley in two variables.
Evaluation rosenbrock(const Tensor& point) {
  const double x = point.data<double>()[0], y = point.data<double>()[1];
  const double value = 100.0 * (y - x * x) * (y - x * x) + (1.0 - x) * (1.0 - x);
  return {
      value, [x, y] {
        return Tensor::from<double>({-400.0 * x * (y - x * x) - 2.0 * (1.0 - x), 200.0 * (y - x * x)}, {2});
      }};
}

LbfgsOptions patient() {
  LbfgsOptions options;
  options.max_iterations = 200;
  options.relative_decrease = 0.0;
  return options;
}

const Tensor kStart = Tensor::from<double>({-1.2, 1.0}, {2});

TEST(Lbfgs, FindsTheMinimumOfACurvedValley) {
  LbfgsProblem problem;
  problem.evaluate = rosenbrock;
  const LbfgsResult found = minimise_lbfgs(kStart, problem, patient());
  EXPECT_NEAR(found.point.data<double>()[0], 1.0, 1e-5);
  EXPECT_NEAR(found.point.data<double>()[1], 1.0, 1e-5);
  EXPECT_LT(found.iterations, 60);
}

// Beyond x = 0.5 everything is infeasible: the search must shorten its steps and end at the wall.
TEST(Lbfgs, StopsAtAWallWithoutTouchingIt) {
  LbfgsProblem problem;
  int infeasible = 0;
  problem.evaluate = [&](const Tensor& point) -> Evaluation {
    if (point.data<double>()[0] < 0.5) return rosenbrock(point);
    ++infeasible;
    return {std::numeric_limits<double>::infinity(), {}};
  };
  const LbfgsResult found = minimise_lbfgs(kStart, problem, patient());
  EXPECT_GT(infeasible, 0);
  EXPECT_LT(found.point.data<double>()[0], 0.5);
  EXPECT_GT(found.point.data<double>()[0], 0.45);
  EXPECT_EQ(found.reason, StopReason::no_acceptable_step);
}

/// One iteration on -x from 0; what lies beyond 0.7 is up to the test.
LbfgsResult descend_a_slope(const std::function<Evaluation(double x)>& beyond,
                            LbfgsOptions options = patient()) {
  LbfgsProblem problem;
  problem.evaluate = [&](const Tensor& point) -> Evaluation {
    const double x = point.data<double>()[0];
    if (x > 0.7) return beyond(x);
    return {-x, [] { return Tensor::from<double>({-1.0}, {1}); }};
  };
  options.max_iterations = 1;
  return minimise_lbfgs(Tensor::from<double>({0.0}, {1}), problem, options);
}

// No slope is ever flat enough: a search that holds a lower point ends after that many evaluations.
TEST(Lbfgs, LooksForAFlatterPointOnlySoLong) {
  const auto slope = [](double x) -> Evaluation {
    return {-x, [] { return Tensor::from<double>({-1.0}, {1}); }};
  };
  for (const int limit : {2, 6, 9}) {
    LbfgsOptions options = patient();
    options.max_refining_evaluations = limit;
    const LbfgsResult found = descend_a_slope(slope, options);
    EXPECT_EQ(found.evaluations, 1 + limit);
    EXPECT_LT(found.value, -1.0);
  }
}

// The slope is nowhere flat, so a search for such a point would end beside the wall.
TEST(Lbfgs, TakesAnyDecreaseInFrontOfAWall) {
  const LbfgsResult found = descend_a_slope([](double) -> Evaluation {
    return {std::numeric_limits<double>::infinity(), {}};
  });
  EXPECT_EQ(found.evaluations, 3);
  EXPECT_EQ(found.point.data<double>()[0], 0.5);
}

// Beyond 0.7 values are lower still, but their gradient has exploded: no step may end there.
TEST(Lbfgs, LeavesOutPointsWhoseGradientExploded) {
  const LbfgsResult found = descend_a_slope([](double x) -> Evaluation {
    return {-x - 10.0, [] { return Tensor::from<double>({-1e9}, {1}); }};
  });
  EXPECT_EQ(found.point.data<double>()[0], 0.5);
}

// The same where the gradient explodes across the search, which its slope does not show: y has no part in the
// value, and the gradient beyond 0.7 pulls along it.
TEST(Lbfgs, LeavesOutPointsWhoseGradientExplodedAcrossTheSearch) {
  for (const bool limited : {true, false}) {
    LbfgsProblem problem;
    problem.evaluate = [](const Tensor& point) -> Evaluation {
      const double x = point.data<double>()[0];
      const double across = x > 0.7 ? 10.0 : 0.0;
      return {-x, [across] { return Tensor::from<double>({-1.0, across}, {2}); }};
    };
    LbfgsOptions options = patient();
    options.max_iterations = 1;
    if (!limited) options.largest_gradient_growth = std::numeric_limits<double>::infinity();
    const LbfgsResult found = minimise_lbfgs(Tensor::from<double>({0.0, 0.0}, {2}), problem, options);
    if (limited) {
      EXPECT_EQ(found.point.data<double>()[0], 0.5);
    } else {
      EXPECT_GT(found.point.data<double>()[0], 0.7);
    }
  }
}

TEST(Lbfgs, APreconditionerThatIsTheInverseHessianNeedsOneStep) {
  LbfgsProblem problem;
  const std::vector<double> curvature{1.0, 1e4, 1e-3};
  problem.evaluate = [&](const Tensor& point) -> Evaluation {
    std::vector<double> gradient;
    double value = 0.0;
    for (std::size_t i = 0; i < 3; ++i) {
      const double x = point.data<double>()[i];
      value += 0.5 * curvature[i] * x * x;
      gradient.push_back(curvature[i] * x);
    }
    return {value, [gradient] { return Tensor::from(gradient, {3}); }};
  };
  problem.precondition = [&](const Tensor& gradient) {
    std::vector<double> scaled = gradient.to_vector<double>();
    for (std::size_t i = 0; i < 3; ++i) scaled[i] /= curvature[i];
    return Tensor::from(scaled, {3});
  };
  const LbfgsResult found = minimise_lbfgs(Tensor::from<double>({1.0, 2.0, 3.0}, {3}), problem, patient());
  EXPECT_LE(found.iterations, 2);
  EXPECT_LT(found.value, 1e-20);
}

TEST(Lbfgs, AnInfeasibleStartIsAnError) {
  LbfgsProblem problem;
  problem.evaluate = [](const Tensor&) -> Evaluation {
    return {std::numeric_limits<double>::infinity(), {}};
  };
  EXPECT_THROW(minimise_lbfgs(kStart, problem, {}), Error);
}

}  // namespace
}  // namespace cinnabar
