// What flows of CPAB fields are: exact, invertible, differentiable, and true to their constraints.

#include <gtest/gtest.h>

#include <cmath>

#include "autograd/elementwise.hpp"
#include "autograd/gradcheck.hpp"
#include "autograd/layout.hpp"
#include "tests/cpab_fields.hpp"

namespace cinnabar::testing {
namespace {

const CpabOptions kScheme{CpabIntegrator::steps, 10};

/// Maps of v(x) = [A b] [x; 1] everywhere, whatever the cells.
Tensor maps_of_affine(const CpabTessellation& tessellation, const std::vector<double>& matrix) {
  std::vector<double> all;
  for (std::int64_t c = 0; c < tessellation.cells(); ++c) all.insert(all.end(), matrix.begin(), matrix.end());
  const std::int64_t d = tessellation.dims();
  return tessellation.maps_from_matrices(Tensor::from(all, {1, tessellation.cells(), d, d + 1}));
}

double distance(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.shape(), b.shape());
  const std::vector<double> x = a.to_vector<double>(), y = b.to_vector<double>();
  double result = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) result = worse(result, std::abs(x[i] - y[i]));
  return result;
}

TEST(CpabFlow, DoublesADistanceInsideATent) {
  // v rises to log(2) / 2 at the middle of [0, 1], so v = x log 2 left of it and the flow doubles x.
  const CpabTessellation tessellation({2});
  const Tensor nodes = Tensor::from<double>({0.0, std::log(2.0) / 2, 0.0}, {1, 3, 1});
  const Tensor maps = tessellation.maps_from_matrices(tessellation.matrices_from_nodes(nodes));
  const Tensor points = Tensor::from<double>({0.0, 0.1, 0.25, 1.0}, {4, 1});
  const Variable moved = cpab_flow_of_maps(Variable(points), Variable(maps), tessellation.grid());
  EXPECT_LE(distance(moved.value(), Tensor::from<double>({0.0, 0.2, 0.5, 1.0}, {1, 4, 1})), 1e-15);
}

TEST(CpabFlow, AnAffineFieldGivesItsExponentialWhateverTheCells) {
  const double turn = 2.0;
  const double c = std::cos(turn), s = std::sin(turn);
  const CpabTessellation flat({5, 3});
  const Tensor start = Tensor::from<double>({0.5, 0.5, 0.9, 0.5, 0.31, 0.27}, {3, 2});
  const Tensor expected = Tensor::from<double>(
      {0.5, 0.5, 0.5 + 0.4 * c, 0.5 + 0.4 * s, 0.5 - 0.19 * c + 0.23 * s, 0.5 - 0.19 * s - 0.23 * c},
      {1, 3, 2});
  const Tensor maps = maps_of_affine(flat, {0, -turn, turn / 2, turn, 0, -turn / 2});
  EXPECT_LE(distance(cpab_flow_of_maps(Variable(start), Variable(maps), flat.grid()).value(), expected),
            1e-14);

  const CpabTessellation solid({2, 3, 4});
  const Tensor deep = Tensor::from<double>({0.9, 0.5, 0.25}, {1, 3});
  const Tensor turning =
      maps_of_affine(solid, {0, -turn, 0, turn / 2, turn, 0, 0, -turn / 2, 0, 0, 0.5, 0.125});
  const Tensor moved = cpab_flow_of_maps(Variable(deep), Variable(turning), solid.grid()).value();
  const double z = 0.5 * std::exp(0.5) - 0.25;
  EXPECT_LE(distance(moved, Tensor::from<double>({0.5 + 0.4 * c, 0.5 + 0.4 * s, z}, {1, 1, 3})), 1e-14);
}

TEST(CpabFlow, LongWalksAreUndoneSegmentBySegment) {
  // 100 radians through some 400 faces; the Jacobian is the rotation.
  const CpabTessellation tessellation({3, 3});
  const double turn = 100.0;
  const Variable maps(maps_of_affine(tessellation, {0, -turn, turn / 2, turn, 0, -turn / 2}), true);
  const Variable points(Tensor::from<double>({0.62, 0.41}, {1, 2}), true);
  cpab_flow_of_maps(points, maps, tessellation.grid()).backward(Tensor::from<double>({1.0, 0.0}, {1, 1, 2}));
  const Tensor expected = Tensor::from<double>({std::cos(turn), -std::sin(turn)}, {1, 2});
  EXPECT_LE(distance(points.grad(), expected), 1e-11);
}

TEST(CpabFlow, MapsWithRowSumsOf256AreStillExact) {
  // Some 41 turns about the centre of one box, each through its four cells.
  const CpabTessellation tessellation({1, 1});
  const double turn = 256.0;
  const double c = std::cos(turn), s = std::sin(turn);
  const Tensor points = Tensor::from<double>({0.625, 0.40625, 0.5, 0.03125, 0.84375, 0.65625}, {3, 2});
  Tensor expected = Tensor::zeros({1, 3, 2}, DType::f64);
  for (int p = 0; p < 3; ++p) {
    const double x = points.data<double>()[2 * p] - 0.5, y = points.data<double>()[2 * p + 1] - 0.5;
    expected.data<double>()[2 * p] = 0.5 + c * x - s * y;
    expected.data<double>()[2 * p + 1] = 0.5 + s * x + c * y;
  }
  const Tensor maps = maps_of_affine(tessellation, {0, -turn, turn / 2, turn, 0, -turn / 2});
  for (const DType dtype : {DType::f64, DType::f32}) {
    const Variable moved =
        cpab_flow_of_maps(Variable(points.to(dtype)), Variable(maps.to(dtype)), tessellation.grid());
    // The time left is rounded some 400 times, by up to 3e-8 of the whole: 8e-6 of a radian.
    EXPECT_LE(distance(moved.value(), expected), dtype == DType::f64 ? 1e-12 : 2e-4);
  }
}

TEST(CpabFlow, GradientsMatchDifferences) {
  for (const Boxes& boxes : {Boxes{4}, {2, 3}, {2, 1, 2}}) {
    for (const bool zero_boundary : {true, false}) {
      const CpabSpace space = space_of(boxes, {.zero_boundary = zero_boundary});
      const Tensor theta = lively_theta(space, 2, 1);
      const Tensor shared = points_inside(5, space.dims(), 2);
      const Tensor apart = random_tensor({2, 4, space.dims()}, 3, 0.05, 0.95, DType::f64);
      for (const CpabOptions& options : {CpabOptions{}, kScheme}) {
        const auto fn = [&](const std::vector<Variable>& in) {
          return cpab_flow(in[0], in[1], space, options);
        };
        for (const Tensor& points : {shared, apart}) {
          const GradcheckResult result = gradcheck(fn, {points, theta}, {.max_entries = 20});
          EXPECT_TRUE(result) << ::testing::PrintToString(boxes) << options.steps << result.message;
        }
      }
    }
  }
}

TEST(CpabFlow, GradientCountsTheChangeOfTheExitTimeWhereTheFieldJumps) {
  // Two bands of uniform flow, along x and twice as fast: the time of the exit decides how far a point gets.
  const CpabTessellation tessellation({2});
  const Tensor matrices = Tensor::from<double>({0.1, 0.4, -0.2, 0.9}, {1, 2, 1, 2});
  const Tensor maps = tessellation.maps_from_matrices(matrices);
  const auto line = [&](const std::vector<Variable>& in) {
    return cpab_flow_of_maps(in[0], in[1], tessellation.grid());
  };
  const GradcheckResult in_1d = gradcheck(line, {Tensor::from<double>({0.3, 0.2}, {2, 1}), maps});
  EXPECT_TRUE(in_1d) << in_1d.message;

  const CpabTessellation flat({1, 1});
  const Tensor pieces = random_tensor({1, 4, 2, 3}, 5, -0.3, 0.3, DType::f64);
  Tensor jumping = flat.maps_from_matrices(pieces);
  for (int t = 0; t < 4; ++t) jumping.data<double>()[t * 6 + 2] += 0.8;  // all towards x = 1
  const auto plane = [&](const std::vector<Variable>& in) {
    return cpab_flow_of_maps(in[0], in[1], flat.grid());
  };
  const GradcheckResult in_2d =
      gradcheck(plane, {Tensor::from<double>({0.2, 0.4, 0.1, 0.7}, {2, 2}), jumping});
  EXPECT_TRUE(in_2d) << in_2d.message;
}

TEST(CpabFlow, GradcheckRejectsTheGradientOfTheOtherIntegrator) {
  const CpabSpace space = space_of({3, 3});
  const auto wrong = [&](const std::vector<Variable>& in) {
    const Variable moved = cpab_flow(in[0], in[1], space);
    const Tensor points = in[0].value(), theta = in[1].value();
    return record_one("wrong", moved.value(), in, [=, &space](const Tensor& grad_output) {
      const RecordingScope recording(true);
      const Variable x(points, true), t(theta, true);
      cpab_flow(x, t, space, {CpabIntegrator::steps, 4}).backward(grad_output);
      return std::vector<Tensor>{x.grad(), t.grad()};
    });
  };
  EXPECT_FALSE(gradcheck(wrong, {points_inside(6, 2, 3), lively_theta(space, 1, 4)}));
}

/// What a flow says about points: ends [P, d], gradients of the sum of the ends [P, d] and log det [P, 1].
std::vector<Tensor> facts_of_flow(const Tensor& points, const Tensor& theta, const CpabSpace& space) {
  const Variable start(points, true);
  const Variable ends = cpab_flow(start, Variable(theta), space);
  ends.backward(Tensor::full(ends.shape(), 1.0, points.dtype()));
  return {ends.value().reshape(points.shape()), start.grad(),
          cpab_log_determinant(points, theta, space).reshape({points.shape(0), 1})};
}

TEST(CpabFlow, APointMovesTheSameInAnyCompany) {
  // A free boundary: many points leave the domain, or start beside it.
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (const Boxes& boxes : {Boxes{6, 4}, Boxes{3, 4, 2}}) {
      const CpabSpace space(boxes, {.zero_boundary = false}, dtype);
      const Tensor theta = lively_theta(space, 1, 5);
      const Tensor many = random_tensor({203, space.dims()}, 6, -0.2, 1.2, dtype);
      const std::vector<Tensor> together = facts_of_flow(many, theta, space);
      for (const std::int64_t i : {0, 1, 77, 202}) {
        const auto row = [&](const Tensor& rows) { return slice(Variable(rows), 0, i, i + 1).value(); };
        const std::vector<Tensor> alone = facts_of_flow(row(many), theta, space);
        for (std::size_t fact = 0; fact < alone.size(); ++fact)
          EXPECT_EQ(distance(alone[fact], row(together[fact])), 0.0) << fact << ' ' << i;
      }
    }
  }
}

TEST(CpabFlow, TheFlowOfMinusThetaIsTheInverse) {
  for (const Boxes& boxes : {Boxes{6}, {3, 4}, {2, 3, 2}}) {
    const CpabSpace space = space_of(boxes);
    const Variable theta(lively_theta(space, 2, 7));
    const Variable points(points_inside(200, space.dims(), 8));
    const Variable back = cpab_flow(cpab_flow(points, theta, space), theta * -1.0, space);
    const Variable zero = cpab_flow(points, Variable(Tensor::zeros({2, space.dim()}, DType::f64)), space);
    EXPECT_LE(distance(back.value(), zero.value()), 1e-11) << ::testing::PrintToString(boxes);
  }
}

TEST(CpabFlow, FlowsOfOneFieldCompose) {
  const CpabSpace space = space_of({3, 2, 2});
  const Variable theta(lively_theta(space, 1, 9));
  const Variable points(points_inside(200, 3, 10));
  const Variable twice = cpab_flow(cpab_flow(points, theta, space), theta, space);
  EXPECT_LE(distance(twice.value(), cpab_flow(points, theta * 2.0, space).value()), 1e-12);
}

TEST(CpabFlow, ZeroBoundaryKeepsEveryFaceOfTheDomain) {
  for (const Boxes& boxes : {Boxes{5}, {3, 4}, {2, 3, 4}}) {
    for (const DType dtype : {DType::f64, DType::f32}) {
      const CpabSpace space(boxes, {}, dtype);
      const int d = space.dims();
      Tensor points = points_inside(60, d, 11);
      for (int p = 0; p < 60; ++p) points.data<double>()[p * d + p % d] = p / d % 2 == 0 ? 0.0 : 1.0;
      const Tensor theta = lively_theta(space, 1, 12);
      const std::vector<double> moved =
          cpab_flow(Variable(points.to(dtype)), Variable(theta), space).value().to_vector<double>();
      const std::vector<double> speed = cpab_velocity(points.to(dtype), theta, space).to_vector<double>();
      const double rounding = dtype == DType::f64 ? 1e-14 : 1e-6;
      for (std::size_t p = 0; p < 60; ++p) {
        const std::size_t k = p * static_cast<std::size_t>(d) + p % static_cast<std::size_t>(d);
        EXPECT_NEAR(moved[k], points.data<double>()[k], rounding);
        EXPECT_NEAR(speed[k], 0.0, rounding);
      }
      for (const double x : moved) EXPECT_TRUE(x > -1e-6 && x < 1.0 + 1e-6);
    }
  }
}

TEST(CpabFlow, VolumePreservationKeepsTheDeterminantAtOne) {
  for (const Boxes& boxes : {Boxes{3, 3}, {3, 3, 3}}) {
    const CpabSpace space = space_of(boxes, {.volume_preserving = true});
    const Tensor log_determinant =
        cpab_log_determinant(points_inside(100, space.dims(), 13), lively_theta(space, 2, 14), space);
    EXPECT_LE(largest(log_determinant), 1e-12);
  }
}

TEST(CpabFlow, LogDeterminantIsThatOfTheJacobian) {
  const CpabSpace space = space_of({3, 2});
  const Tensor theta = lively_theta(space, 1, 15);
  const Tensor points = points_inside(50, 2, 16);
  for (const CpabOptions& options : {CpabOptions{}, kScheme}) {
    const Tensor found = cpab_log_determinant(points, theta, space, options);
    std::vector<double> rows[2];
    for (int row = 0; row < 2; ++row) {
      const Variable x(points, true);
      Tensor seed = Tensor::zeros({1, 50, 2}, DType::f64);
      for (int p = 0; p < 50; ++p) seed.data<double>()[p * 2 + row] = 1.0;
      cpab_flow(x, Variable(theta), space, options).backward(seed);
      rows[row] = x.grad().to_vector<double>();
    }
    for (std::size_t p = 0; p < 50; ++p) {
      const double determinant = rows[0][2 * p] * rows[1][2 * p + 1] - rows[0][2 * p + 1] * rows[1][2 * p];
      EXPECT_NEAR(found.data<double>()[p], std::log(determinant), 1e-11);
    }
  }
}

TEST(CpabFlow, TheVelocityIsContinuousAcrossFaces) {
  for (const Boxes& boxes : {Boxes{5, 3}, {3, 2, 4}}) {
    const CpabSpace space = space_of(boxes, {.zero_boundary = false});
    const int d = space.dims();
    const Tensor theta = lively_theta(space, 1, 17);
    Tensor here = points_inside(300, d, 18);
    Tensor there = here.clone();
    for (std::int64_t p = 0; p < 300; ++p) {  // either side of a face between boxes
      const std::int64_t axis = p % d;
      const double n = boxes[static_cast<std::size_t>(axis)];
      const double face = std::floor(here.data<double>()[p * d + axis] * n) / n;
      here.data<double>()[p * d + axis] = face - 1e-13;
      there.data<double>()[p * d + axis] = face + 1e-13;
    }
    EXPECT_LE(distance(cpab_velocity(here, theta, space), cpab_velocity(there, theta, space)), 1e-10);
  }
}

TEST(CpabFlow, ASlidingPointStillEnds) {
  // The two halves push onto their common face; the exact flow switches a bounded number of times.
  const CpabTessellation tessellation({1, 2});
  std::vector<double> matrices;
  for (int cell = 0; cell < 8; ++cell) {
    for (const double entry : {0.0, 0.0, 0.3, 0.0, 0.0, cell < 4 ? 0.5 : -0.5}) matrices.push_back(entry);
  }
  const Tensor maps = tessellation.maps_from_matrices(Tensor::from(matrices, {1, 8, 2, 3}));
  const Tensor moved = cpab_flow_of_maps(Variable(Tensor::from<double>({0.1, 0.3}, {1, 2})), Variable(maps),
                                         tessellation.grid())
                           .value();
  EXPECT_NEAR(moved.data<double>()[0], 0.4, 1e-9);
  EXPECT_NEAR(moved.data<double>()[1], 0.5, 0.3);
}

}  // namespace
}  // namespace cinnabar::testing
