// Every family of transformations: identity, small cases by hand, other formulas, gradients, inverses.

#include "layers/grid_generator.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "autograd/elementwise.hpp"
#include "autograd/gradcheck.hpp"
#include "autograd/layout.hpp"
#include "autograd/matmul.hpp"
#include "autograd/warp.hpp"
#include "layers/cpab_warp.hpp"
#include "layers/field_warp.hpp"
#include "layers/matrix_warp.hpp"
#include "layers/spatial_transformer.hpp"
#include "layers/thin_plate_warp.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

const Shape kPlane{6, 7}, kSpace{4, 5, 6};
constexpr GridOptions kSmall{.control_points = 3, .boxes = 2, .lattice = 3, .squarings = 4};

/// Every family in every number of dimensions that it has.
std::vector<std::unique_ptr<GridGenerator>> all_families() {
  std::vector<std::unique_ptr<GridGenerator>> all;
  for (const std::string& name : grid_generator_names()) {
    all.push_back(make_grid_generator(name, kPlane, kSmall));
    if (name != "homography") all.push_back(make_grid_generator(name, kSpace, kSmall));
  }
  return all;
}

Tensor random_parameters(const GridGenerator& family, std::int64_t batch, std::uint64_t seed, double size) {
  return random_tensor({batch, family.parameter_count()}, seed, -size, size, DType::f64);
}

Shape with_batch(std::int64_t batch, const Shape& spatial) {
  Shape shape{batch, 2};
  for (const std::int64_t extent : spatial) shape = shape.append(extent);
  return shape;
}

/// Entry (n, voxel) of a grid as a point.
std::vector<double> point_of(const Tensor& grid, std::int64_t voxel) {
  const std::int64_t d = grid.shape(-1);
  const std::vector<double> values = grid.to_vector<double>();
  return {values.begin() + voxel * d, values.begin() + (voxel + 1) * d};
}

class GridGeneratorOn : public OnDevice {};
CINNABAR_ON_EACH_DEVICE(GridGeneratorOn);

TEST_P(GridGeneratorOn, ZeroIsTheIdentity) {
  for (const auto& family : all_families()) {
    const Variable zero(Tensor::zeros({2, family->parameter_count()}, DType::f32, device()));
    const Tensor grid = family->grid(zero).value();
    ASSERT_EQ(grid.numel(), 2 * family->spatial().numel() * family->dims());
    const Tensor identity = identity_points(family->spatial()).to(DType::f32);
    EXPECT_LE(relative_error(grid.rows(1, 1).reshape(identity.shape()), identity), 1e-6);
    const Tensor image = random_tensor(with_batch(2, family->spatial()), 3).to(device());
    EXPECT_LE(relative_error(transformed(Variable(image), *family, zero).value(), image), 2e-6);
  }
}

TEST_P(GridGeneratorOn, AgreesWithF64OnTheCpu) {
  for (const auto& family : all_families()) {
    const Tensor p = random_parameters(*family, 3, 5, 0.1);
    const Tensor expected = family->grid(Variable(p)).value();
    const Tensor grid = family->grid(Variable(p.to(DType::f32).to(device()))).value();
    EXPECT_LE(relative_error(grid, expected), 1e-5) << family->parameter_count();
  }
}

TEST(GridGenerator, GradientsThroughTheSamplerMatchDifferences) {
  for (const auto& family : all_families()) {
    const Tensor image = random_tensor(with_batch(2, family->spatial()), 7, -1, 1, DType::f64);
    const Tensor p = random_parameters(*family, 2, 8, 0.07);
    const auto sample = [&](const std::vector<Variable>& in) { return transformed(in[0], *family, in[1]); };
    const GradcheckResult right = gradcheck(sample, {image, p}, {.max_entries = 40});
    EXPECT_TRUE(right) << family->parameter_count() << ": " << right.message;
    // Half the gradient is a wrong one, and is seen.
    const auto wrong = [&](const std::vector<Variable>& in) {
      return transformed(in[0], *family, 0.5 * (in[1] + in[1].detach()));
    };
    EXPECT_FALSE(gradcheck(wrong, {image, p}, {.max_entries = 40})) << family->parameter_count();
  }
}

TEST(GridGenerator, InversesAndCompositionsOfMatrices) {
  for (const auto& family : all_families()) {
    const auto* matrices = dynamic_cast<const MatrixWarp*>(family.get());
    EXPECT_EQ(family->has_composition(), matrices != nullptr);
    if (matrices == nullptr) continue;
    const Variable p(random_parameters(*family, 3, 9, 0.2)), q(random_parameters(*family, 3, 10, 0.2));
    const Variable none = family->compose(p, family->inverse(p));
    EXPECT_LE(relative_error(none.value(), Tensor::zeros(none.shape(), DType::f64)), 1e-12);
    EXPECT_LE(relative_error(matrices->parameters_of(matrices->matrices(p)).value(), p.value()), 1e-12);
    const Tensor product = matmul(matrices->matrices(p), matrices->matrices(q)).value();
    const Variable m = matrices->matrices(family->compose(p, q));
    const Variable scaled = m * slice(Variable(product), {{}, {-1}, {-1}});
    EXPECT_LE(relative_error(scaled.value(), product), 1e-12);
    EXPECT_TRUE(gradcheck(
        [&](const std::vector<Variable>& in) { return family->compose(in[0], family->inverse(in[1])); },
        {p.value(), q.value()}));
  }
}

TEST(GridGenerator, ComposedImagesAreImagesTransformedTwice) {
  // A quarter turn, then a shift by one pixel: both keep pixels whole.
  const AffineWarp affine({7, 7});
  const Variable turn(Tensor::from<float>({-1, -1, 0, 1, -1, 0}, {1, 6}));
  const Variable shift(Tensor::from<float>({0, 0, 1.0f / 3, 0, 0, 0}, {1, 6}));
  const Variable image(random_tensor({1, 1, 7, 7}, 11));
  const Variable twice = transformed(transformed(image, affine, turn), affine, shift);
  const Variable once = transformed(image, affine, affine.compose(turn, shift));
  EXPECT_LE(relative_error(once.value(), twice.value()), 1e-5);
  const Variable other = transformed(image, affine, affine.compose(shift, turn));
  EXPECT_GT(relative_error(other.value(), twice.value()), 0.1);
}

TEST(GridGenerator, AffineAndAttentionByHand) {
  const AffineWarp affine({2, 3});
  const Tensor moved =
      affine.grid(Variable(Tensor::from<double>({1, 0.5, 0.25, 0, -0.5, -0.125}, {1, 6}))).value();
  EXPECT_EQ(point_of(moved, 0), (std::vector<double>{-2 - 0.5 + 0.25, -0.5 - 0.125}));
  EXPECT_EQ(point_of(moved, 5), (std::vector<double>{2 + 0.5 + 0.25, 0.5 - 0.125}));
  const AttentionWarp attention({2, 2, 3});
  const Tensor part =
      attention.grid(Variable(Tensor::from<double>({std::log(0.5), 0.1, 0.2, 0.3}, {1, 4}))).value();
  const std::vector<double> corner = point_of(part, 11);
  EXPECT_NEAR(corner[0], 0.6, 1e-12);
  EXPECT_NEAR(corner[1], 0.7, 1e-12);
  EXPECT_NEAR(corner[2], 0.8, 1e-12);
}

TEST(GridGenerator, HomographyByItsFormula) {
  const HomographyWarp warp({5, 6});
  const std::vector<double> p{0.1, -0.2, 0.05, 0.15, -0.1, 0.3, 0.25, -0.3};
  const Tensor grid = warp.grid(Variable(Tensor::from(p, {1, 8}))).value();
  for (std::int64_t v = 0; v < 30; ++v) {
    const double x = -1 + 2.0 * static_cast<double>(v % 6) / 5, y = -1 + 2.0 * static_cast<double>(v / 6) / 4;
    const double w = p[6] * x + p[7] * y + 1;
    const std::vector<double> found = point_of(grid, v);
    EXPECT_NEAR(found[0], ((1 + p[0]) * x + p[1] * y + p[2]) / w, 1e-12);
    EXPECT_NEAR(found[1], (p[3] * x + (1 + p[4]) * y + p[5]) / w, 1e-12);
  }
  // Behind the horizon everything is far outside, and finite.
  const Variable steep(Tensor::from<double>({0, 0, 0, 0, 0, 0, 3, 0}, {1, 8}), true);
  const Variable seen = transformed(Variable(Tensor::full({1, 1, 5, 6}, 1.0, DType::f64)), warp, steep);
  EXPECT_EQ(seen.value().to_vector<double>()[0], 0.0);
  seen.backward(Tensor::full(seen.shape(), 1.0, DType::f64));
  for (const double slope : steep.grad().to_vector<double>()) EXPECT_TRUE(std::isfinite(slope));
}

TEST(ThinPlateWarp, MovesItsControlPointsExactly) {
  for (const auto& [spatial, counts] : {std::pair{Shape{4, 3}, std::vector<std::int64_t>{3, 4}},
                                        std::pair{Shape{3, 2, 4}, std::vector<std::int64_t>{4, 2, 3}}}) {
    const ThinPlateWarp warp(spatial, counts);  // voxels are the control points
    const Tensor p = random_parameters(warp, 1, 12, 0.4);
    const Tensor grid = warp.grid(Variable(p)).value();
    const Tensor expected =
        (Variable(warp.control_points()) + Variable(p.reshape(warp.control_points().shape()))).value();
    EXPECT_LE(relative_error(grid.reshape(expected.shape()), expected), 1e-10);
  }
}

TEST(ThinPlateWarp, ReproducesAffineMaps) {
  const ThinPlateWarp warp({9, 8}, {4, 3});
  const AffineWarp affine({9, 8});
  const Variable a(Tensor::from<double>({0.2, -0.3, 0.1, 0.4, 0.1, -0.2}, {1, 6}));
  const Variable whole = affine.matrices(a);
  const Variable points(warp.control_points());
  const Variable moved = matmul(points, slice(whole, {{}, {0, 2}, {0, 2}}), false, true) +
                         reshape(slice(whole, {{}, {0, 2}, {2, 3}}), {1, 1, 2});
  const Variable p = reshape(moved - points, {1, warp.parameter_count()});
  EXPECT_LE(relative_error(warp.grid(p).value(), affine.grid(a).value()), 1e-10);
}

/// Solves a square system by Gauss-Jordan elimination; the matrix is [rows, rows + 1] with the right side.
std::vector<double> solved(std::vector<std::vector<double>> rows) {
  const std::size_t n = rows.size();
  for (std::size_t c = 0; c < n; ++c) {
    std::size_t pivot = c;
    for (std::size_t r = c; r < n; ++r) pivot = std::abs(rows[r][c]) > std::abs(rows[pivot][c]) ? r : pivot;
    std::swap(rows[c], rows[pivot]);
    for (std::size_t r = 0; r < n; ++r) {
      const double share = r == c ? 0.0 : rows[r][c] / rows[c][c];
      for (std::size_t k = c; k <= n; ++k) rows[r][k] -= share * rows[c][k];
    }
  }
  std::vector<double> x;
  for (std::size_t r = 0; r < n; ++r) x.push_back(rows[r][n] / rows[r][r]);
  return x;
}

TEST(ThinPlateWarp, IsTheSplineOfTheSystemWrittenOut) {
  for (const std::size_t d : {2u, 3u}) {
    const Shape spatial = d == 2 ? kPlane : kSpace;
    const ThinPlateWarp warp(spatial, std::vector<std::int64_t>(d, 3));
    const std::vector<double> centres = warp.control_points().to_vector<double>();
    const std::size_t count = centres.size() / d, size = count + d + 1;
    const auto basis = [&](const double* x, std::size_t k) {
      if (k == count) return 1.0;
      if (k > count) return x[k - count - 1];
      double r = 0.0;
      for (std::size_t i = 0; i < d; ++i) r = std::hypot(r, x[i] - centres[k * d + i]);
      return d == 3 ? r : (r == 0.0 ? 0.0 : r * r * std::log(r));
    };
    const Tensor p = random_parameters(warp, 1, 13, 0.3);
    const std::vector<double> moves = p.to_vector<double>();
    const Tensor grid = warp.grid(Variable(p)).value(), identity = identity_points(spatial);
    for (std::size_t axis = 0; axis < d; ++axis) {
      std::vector<std::vector<double>> system(size, std::vector<double>(size + 1, 0.0));
      for (std::size_t k = 0; k < count; ++k) {
        for (std::size_t j = 0; j < size; ++j) {
          system[k][j] = basis(&centres[k * d], j);
          if (j >= count) system[j][k] = system[k][j];
        }
        system[k][size] = moves[k * d + axis];
      }
      const std::vector<double> w = solved(system);
      for (std::int64_t v = 0; v < spatial.numel(); v += 5) {
        const std::vector<double> x = point_of(identity, v);
        double expected = x[axis];
        for (std::size_t j = 0; j < size; ++j) expected += w[j] * basis(x.data(), j);
        EXPECT_NEAR(point_of(grid, v)[axis], expected, 1e-9);
      }
    }
  }
}

TEST(CpabWarp, FollowsItsVelocityAndComesBack) {
  const CpabWarp warp(kPlane, {2, 3});
  const Tensor theta = random_parameters(warp, 1, 14, 0.3);
  const Tensor grid = warp.grid(Variable(theta)).value();  // makes the space f64
  // Runge and Kutta's steps through the velocities of the field, in [0, 1].
  Variable x(add_scalar(scale(Variable(identity_points(kPlane)), 0.5), 0.5));
  constexpr int kSteps = 400;
  const auto velocity = [&](const Variable& at) {
    return reshape(Variable(cpab_velocity(at.value(), theta, warp.space())), {-1, 2});
  };
  for (int step = 0; step < kSteps; ++step) {
    const double h = 1.0 / kSteps;
    const Variable a = velocity(x), b = velocity(x + 0.5 * h * a), c = velocity(x + 0.5 * h * b);
    x = x + h / 6 * (a + 2.0 * b + 2.0 * c + velocity(x + h * c));
  }
  const Tensor expected = affine(x, 2.0, -1.0).value();
  EXPECT_LE(relative_error(grid.reshape(expected.shape()), expected), 1e-5);
  const Variable back = cpab_flow(x, warp.inverse(Variable(theta)), warp.space());
  EXPECT_LE(
      relative_error(affine(back, 2.0, -1.0).value().reshape(expected.shape()), identity_points(kPlane)),
      1e-5);
}

TEST(DisplacementWarp, AddsUpsampledVectors) {
  const DisplacementWarp dense({3, 4}, {3, 4}), coarse({3, 3}, {2, 2});
  const Tensor p = random_parameters(dense, 1, 15, 0.5);
  const std::vector<double> u = p.to_vector<double>(), x = identity_points({3, 4}).to_vector<double>();
  const Tensor grid = dense.grid(Variable(p)).value();
  for (std::size_t v = 0; v < 12; ++v) {
    EXPECT_NEAR(point_of(grid, static_cast<std::int64_t>(v))[0], x[2 * v] + u[v], 1e-12);
    EXPECT_NEAR(point_of(grid, static_cast<std::int64_t>(v))[1], x[2 * v + 1] + u[12 + v], 1e-12);
  }
  // The middle of four vectors is their mean.
  const Variable four(Tensor::from<double>({0.1, 0.2, 0.3, 0.4, 0, 0, 0, 0.8}, {1, 8}));
  const std::vector<double> middle = point_of(coarse.grid(four).value(), 4);
  EXPECT_NEAR(middle[0], 0.25, 1e-12);
  EXPECT_NEAR(middle[1], 0.2, 1e-12);
}

TEST(VelocityWarp, FlowsAlongLinearFieldsAsTheExponentialDoes) {
  // v = a x shrinks the image: after k squarings x (1 + a / 2^k)^(2^k), which tends to e^a x.
  const double a = -0.7;
  for (const int squarings : {0, 3, 7}) {
    const VelocityWarp warp({9, 12}, {2, 2}, squarings);
    const Variable p(Tensor::from<double>({-a, a, -a, a, -a, -a, a, a}, {1, 8}));
    const double factor = std::pow(1 + std::ldexp(a, -squarings), std::ldexp(1.0, squarings));
    EXPECT_NEAR(factor, std::exp(a), squarings == 7 ? 2e-3 : 0.3);
    const Variable expected = factor * Variable(identity_points({9, 12}));
    const Tensor grid = warp.grid(p).value();
    EXPECT_LE(relative_error(grid.reshape(expected.shape()), expected.value()), 1e-12) << squarings;
  }
}

/// A smooth field [1, 3, D, H, W] that is zero at the border, of up to 3 voxels.
Variable smooth_velocity(const Shape& spatial) {
  Tensor field = Tensor::empty({1, 3, spatial[0], spatial[1], spatial[2]}, DType::f64);
  const std::vector<double> x = identity_points(spatial).to_vector<double>();
  const double pi = std::acos(-1.0);
  const std::int64_t volume = spatial.numel();
  for (std::int64_t v = 0; v < volume; ++v) {
    const double* at = x.data() + 3 * v;
    const double rim = std::cos(pi / 2 * at[0]) * std::cos(pi / 2 * at[1]) * std::cos(pi / 2 * at[2]);
    double* values = field.data<double>() + v;
    values[0] = 3.0 * rim;
    values[volume] = 3.0 * rim * std::sin(pi * at[2]);
    values[2 * volume] = 3.0 * rim * std::sin(pi * (at[0] + at[1]));
  }
  return Variable(field);
}

TEST(IntegrateVelocity, OppositeVelocitiesAreInverseAndNothingFolds) {
  const Shape spatial{21, 24, 27};
  const Variable v = smooth_velocity(spatial);
  const Variable there = integrate_velocity(v), back = integrate_velocity(-v);
  double largest = 0.0, left = 0.0;
  for (const double u : there.value().to_vector<double>()) largest = std::max(largest, std::abs(u));
  EXPECT_GT(largest, 1.5);
  for (const Variable& both : {compose(there, back), compose(back, there)}) {
    for (const double u : both.value().to_vector<double>()) left = std::max(left, std::abs(u));
  }
  EXPECT_LT(left, 0.1);
  // Determinants of forward differences.
  const std::vector<double> u = there.value().to_vector<double>();
  const std::int64_t volume = spatial.numel(), step[3] = {1, 27, 27 * 24};
  double least = INFINITY;
  for (std::int64_t z = 0; z < 20; ++z) {
    for (std::int64_t y = 0; y < 23; ++y) {
      for (std::int64_t x = 0; x < 26; ++x) {
        const std::int64_t at = z * step[2] + y * step[1] + x;
        double j[3][3];
        for (int c = 0; c < 3; ++c) {
          for (int axis = 0; axis < 3; ++axis) {
            const auto here = static_cast<std::size_t>(c * volume + at);
            const auto next = static_cast<std::size_t>(c * volume + at + step[axis]);
            j[c][axis] = u[next] - u[here] + (c == axis ? 1.0 : 0.0);
          }
        }
        least = std::min(least, j[0][0] * (j[1][1] * j[2][2] - j[1][2] * j[2][1]) -
                                    j[0][1] * (j[1][0] * j[2][2] - j[1][2] * j[2][0]) +
                                    j[0][2] * (j[1][0] * j[2][1] - j[1][1] * j[2][0]));
      }
    }
  }
  EXPECT_GT(least, 0.1);
  EXPECT_LT(least, 0.7) << "the field hardly deforms";
}

TEST(IntegrateVelocity, GradientMatchesDifferences) {
  const Tensor v = random_tensor({1, 3, 3, 4, 5}, 17, -0.6, 0.6, DType::f64);
  EXPECT_TRUE(gradcheck([](const std::vector<Variable>& in) { return integrate_velocity(in[0], 3); }, {v}));
}

TEST(GridGenerator, RefusesWhatDoesNotFit) {
  const AffineWarp affine(kPlane);
  EXPECT_THROW(affine.grid(Variable(Tensor::zeros({1, 5}))), Error);
  EXPECT_THROW(affine.grid(Variable(Tensor::zeros({6}))), Error);
  EXPECT_THROW(AffineWarp({4}), Error);
  EXPECT_THROW(AffineWarp({1, 4}), Error);
  EXPECT_THROW(HomographyWarp({4, 4, 4}), Error);
  EXPECT_THROW(ThinPlateWarp({4, 4}, {3}), Error);
  EXPECT_THROW(ThinPlateWarp({4, 4}, {3, 1}), Error);
  EXPECT_THROW(CpabWarp({4, 4}, {3, 3, 3}), Error);
  EXPECT_THROW(DisplacementWarp({4, 4}, {1, 4}), Error);
  EXPECT_THROW(VelocityWarp({4, 4}, {2, 2}, 31).grid(Variable(Tensor::zeros({1, 8}))), Error);
  const ThinPlateWarp spline(kPlane, {2, 2});
  const Variable p(Tensor::zeros({1, 8}));
  EXPECT_FALSE(spline.has_inverse());
  EXPECT_THROW(spline.inverse(p), Error);
  EXPECT_THROW(spline.compose(p, p), Error);
  EXPECT_THROW(transformed(Variable(Tensor::zeros({1, 1, 5, 7})), spline, p), Error);
  EXPECT_THROW(transformed(Variable(Tensor::zeros({1, 1, 2, 6, 7})), spline, p), Error);
  try {
    make_grid_generator("moebius", kPlane);
    FAIL();
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("attention, homography, tps"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace cinnabar::testing
