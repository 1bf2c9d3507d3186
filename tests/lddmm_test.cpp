// Properties any correct geodesic shooting has, and the optimisers on it. No reference data needed.

#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <cmath>
#include <vector>

#include "autograd/elementwise.hpp"
#include "autograd/epdiff.hpp"
#include "autograd/gradcheck.hpp"
#include "autograd/green_operator.hpp"
#include "autograd/reduce.hpp"
#include "autograd/warp.hpp"
#include "models/lddmm_matching.hpp"
#include "tests/devices.hpp"

namespace cinnabar {
namespace {

struct Grid {
  std::int64_t nz, ny, nx;
  Shape shape(std::int64_t channels) const { return {1, channels, nz, ny, nx}; }
};

/// A Gaussian blob with its middle at fractions (fx, fy, fz) of the grid.
double blob(const Grid& grid, std::int64_t x, std::int64_t y, std::int64_t z, double fx, double fy, double fz,
            double width) {
  const double dx = static_cast<double>(x) - fx * static_cast<double>(grid.nx - 1);
  const double dy = static_cast<double>(y) - fy * static_cast<double>(grid.ny - 1);
  const double dz = static_cast<double>(z) - fz * static_cast<double>(grid.nz - 1);
  return std::exp(-0.5 * (dx * dx + dy * dy + dz * dz) / (width * width));
}

template <class Value>
Tensor filled(const Grid& grid, std::int64_t channels, const Value& value, DType dtype, Device device) {
  std::vector<double> values;
  for (std::int64_t c = 0; c < channels; ++c) {
    for (std::int64_t z = 0; z < grid.nz; ++z) {
      for (std::int64_t y = 0; y < grid.ny; ++y) {
        for (std::int64_t x = 0; x < grid.nx; ++x) values.push_back(value(c, x, y, z));
      }
    }
  }
  return Tensor::from(values, grid.shape(channels)).to(dtype).to(device);
}

/// A smooth momentum well inside the grid that moves points by about `voxels`.
Tensor smooth_momentum(const Grid& grid, double voxels, DType dtype, Device device = Device::cpu()) {
  return filled(
      grid, 3,
      [&](std::int64_t c, std::int64_t x, std::int64_t y, std::int64_t z) {
        const double a = blob(grid, x, y, z, 0.4, 0.55, 0.5, 3.0),
                     b = blob(grid, x, y, z, 0.6, 0.45, 0.5, 3.0);
        const double sign = c == 1 ? -1.0 : c == 2 ? 0.5 : 1.0;
        return 0.004 * voxels * sign * (a - 0.7 * b);
      },
      dtype, device);
}

Tensor image_of(const Grid& grid, double shift, DType dtype, Device device = Device::cpu()) {
  return filled(
      grid, 1,
      [&](std::int64_t, std::int64_t x, std::int64_t y, std::int64_t z) {
        return 0.9 * blob(grid, x, y, z, 0.5 + shift, 0.5, 0.5, 3.0) +
               0.4 * blob(grid, x, y, z, 0.4, 0.6 - shift, 0.4, 2.0);
      },
      dtype, device);
}

double largest(const Variable& x) {
  return amax(abs(x.detach())).value().item();
}

class LddmmProperties : public testing::OnDevice {
 protected:
  DType dtype() const { return device().is_cpu() ? DType::f64 : DType::f32; }
  const Grid grid_{25, 28, 27};
};

TEST_P(LddmmProperties, PsiInvertsPhi) {
  ShootingOptions options;
  options.inverse_iterations = 20;
  const NoGrad quiet;
  const Flow flow = shoot(Variable(smooth_momentum(grid_, 1.0, dtype(), device())), options);
  ASSERT_GT(largest(flow.phi), 0.5);
  EXPECT_LT(largest(compose(flow.phi, flow.psi)), 0.1);
  EXPECT_LT(largest(compose(flow.psi, flow.phi)), 0.1);
}

TEST_P(LddmmProperties, KeepsOrientation) {
  const NoGrad quiet;
  const Flow flow = shoot(Variable(smooth_momentum(grid_, 1.5, dtype(), device())), {});
  EXPECT_GT(amin(jacobian_determinant(flow.phi)).value().item(), 0.0);
  EXPECT_GT(amin(jacobian_determinant(flow.psi)).value().item(), 0.0);
}

TEST_P(LddmmProperties, ConservesTheNormOfTheVelocity) {
  const NoGrad quiet;
  ShootingOptions options;
  const Tensor m0 = smooth_momentum(grid_, 1.0, dtype(), device());
  const double before = squared_norm(m0, options);
  for (const Flow& state : shoot_trajectory(m0, options)) {
    const double now = squared_norm(coad(state.psi, Variable(m0)).value(), options);
    EXPECT_NEAR(now / before, 1.0, 0.05);
  }
}

TEST_P(LddmmProperties, ShootingBackReturnsToTheIdentity) {
  const NoGrad quiet;
  ShootingOptions options;
  const Variable m0(smooth_momentum(grid_, 1.0, dtype(), device()));
  const Flow there = shoot(m0, options);
  const Flow back = shoot(-coad(there.psi, m0), options);
  EXPECT_LT(largest(compose(back.phi, there.phi)), 0.1 * largest(there.phi));
}

TEST_P(LddmmProperties, ZeroMomentumStaysAtTheIdentity) {
  const NoGrad quiet;
  const Flow flow = shoot(Variable(Tensor::zeros(grid_.shape(3), dtype(), device())), {});
  EXPECT_EQ(largest(flow.phi), 0.0);
  EXPECT_EQ(largest(flow.psi), 0.0);
}

TEST_P(LddmmProperties, ADivergingFlowIsNoticed) {
  const Variable huge(Tensor::full(grid_.shape(3), 1e30, dtype(), device()));
  EXPECT_THROW(shoot(huge, {}), DivergedFlow);
}

CINNABAR_ON_EACH_DEVICE(LddmmProperties);

/// L = gamma = 1: K is the identity, so that only the transport is left.
ShootingOptions transport_only(int steps) {
  ShootingOptions options;
  options.fluid = {0.0, 0.0, 1.0};
  options.padding = FftPadding::exact;
  options.time_steps = steps;
  options.inverse_iterations = 60;
  return options;
}

// What happens at the faces reaches one voxel farther with every velocity, so the middle of a large grid
// behaves as in unbounded space.
TEST(Lddmm, AConstantMomentumTranslates) {
  const NoGrad quiet;
  const Grid grid{27, 27, 27};
  const Tensor momentum = filled(
      grid, 3, [](std::int64_t c, auto...) { return c == 0   ? 1.25
                                                    : c == 1 ? -0.75
                                                             : 0.5; }, DType::f64,
      Device::cpu());
  const Flow flow = shoot(Variable(momentum), transport_only(2));
  const std::vector<double> phi = flow.phi.value().to_vector<double>();
  const std::size_t voxels = phi.size() / 3, middle = voxels / 2;
  EXPECT_NEAR(phi[middle], 1.25, 1e-8);
  EXPECT_NEAR(phi[voxels + middle], -0.75, 1e-8);
  EXPECT_NEAR(phi[2 * voxels + middle], 0.5, 1e-8);
}

using Matrix = Eigen::Matrix3d;

/// A(1) of the affine geodesic phi = A x with m0 = M x and K = 1: A' = det(B) B^T M B A, B = A^-1.
Matrix affine_geodesic(const Matrix& m) {
  const auto slope = [&](const Matrix& a) -> Matrix {
    const Matrix b = a.inverse();
    return b.determinant() * b.transpose() * m * b * a;
  };
  Matrix a = Matrix::Identity();
  constexpr int kSteps = 1000;
  const double dt = 1.0 / kSteps;
  for (int i = 0; i < kSteps; ++i) {
    const Matrix k1 = slope(a), k2 = slope(a + 0.5 * dt * k1), k3 = slope(a + 0.5 * dt * k2),
                 k4 = slope(a + dt * k3);
    a += dt / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4);
  }
  return a;
}

// Trilinear sampling is exact on affine maps, so on an affine geodesic the error in time is all there is. (On
// curved maps each inverse update interpolates psi once more, which limits the whole scheme to first order.)
TEST(Lddmm, Rk4ConvergesAtFourthOrderOnAnAffineGeodesic) {
  const NoGrad quiet;
  const Grid grid{45, 45, 45};
  Matrix m;
  m << 0.16, 0.08, 0.0, -0.12, 0.08, 0.05, 0.03, 0.0, -0.10;
  const Tensor momentum = filled(
      grid, 3,
      [&](std::int64_t c, std::int64_t x, std::int64_t y, std::int64_t z) {
        const Eigen::Vector3d p(static_cast<double>(x) - 22.0, static_cast<double>(y) - 22.0,
                                static_cast<double>(z) - 22.0);
        return (m * p)[c];
      },
      DType::f64, Device::cpu());
  const Eigen::Vector3d exact = (affine_geodesic(m) - Matrix::Identity()) * Eigen::Vector3d(2.0, 1.0, -1.0);
  const auto error = [&](int steps) {
    const std::vector<double> phi =
        shoot(Variable(momentum), transport_only(steps)).phi.value().to_vector<double>();
    const std::size_t voxels = phi.size() / 3, at = (21 * 45 + 23) * 45 + 24;
    return (Eigen::Vector3d(phi[at], phi[voxels + at], phi[2 * voxels + at]) - exact).norm();
  };
  const double coarse = error(1), middle = error(2), fine = error(4);
  EXPECT_GT(std::log2(coarse / middle), 3.5) << coarse << " -> " << middle;
  EXPECT_GT(std::log2(middle / fine), 3.5) << middle << " -> " << fine;
}

TEST(Lddmm, CheckpointingChangesNothing) {
  const Grid grid{9, 10, 11};
  const ImagePair pair{image_of(grid, 0.0, DType::f64), image_of(grid, 0.08, DType::f64)};
  const Tensor m0 = smooth_momentum(grid, 0.5, DType::f64);
  MatchingOptions options;
  options.shooting.time_steps = 3;
  const Tensor with = evaluate_matching(pair, m0, options).gradient();
  options.checkpointed = false;
  const Tensor without = evaluate_matching(pair, m0, options).gradient();
  const NoGrad quiet;
  EXPECT_LT(largest(Variable(with) - Variable(without)), 1e-12 * largest(Variable(without)));
}

class ExactGradient : public ::testing::TestWithParam<Similarity> {
 protected:
  /// With images on a grid `factor` times as fine as the momentum's.
  void expect_second_order(std::int64_t factor) const;
};

void ExactGradient::expect_second_order(std::int64_t factor) const {
  const Grid grid{12, 13, 14}, images{12 * factor, 13 * factor, 14 * factor};
  const ImagePair pair{image_of(images, 0.0, DType::f64), image_of(images, 0.06, DType::f64)};
  MatchingOptions options;
  options.similarity = GetParam();
  options.shooting.time_steps = 4;
  options.jacobian_floor = 0.95;  // so that the penalty of folding takes part
  const Tensor m0 = smooth_momentum(grid, 0.6, DType::f64);
  const Tensor direction = smooth_momentum(grid, 0.2, DType::f64);
  const MatchingEvaluation at = evaluate_matching(pair, m0, options);
  const double slope = dot(Variable(at.gradient()), Variable(direction)).value().item();
  const auto remainder = [&](double step) {
    const Variable moved = Variable(m0) + step * Variable(direction);
    return std::abs(evaluate_matching(pair, moved.value(), options).energy.total() - at.energy.total() -
                    step * slope);
  };
  // Small enough that few points cross a voxel face, where trilinear sampling has a kink.
  const double first = remainder(1e-3), second = remainder(5e-4);
  EXPECT_GT(std::log2(first / second), 1.7) << first << " -> " << second;
  EXPECT_GT(at.energy.folding, 0.0);
}

TEST_P(ExactGradient, PassesTheTaylorTestAtSecondOrder) {
  expect_second_order(1);
}

TEST_P(ExactGradient, PassesItWithFinerImagesToo) {
  expect_second_order(2);
}

TEST_P(ExactGradient, IsZeroWhereAnImageMeetsItself) {
  const Grid grid{12, 13, 14};
  const Tensor moving = image_of(grid, 0.0, DType::f64);
  const Tensor nothing = Tensor::zeros(grid.shape(3), DType::f64);
  MatchingOptions options;
  options.similarity = GetParam();
  options.shooting.time_steps = 2;
  const Tensor none = evaluate_matching({moving, moving}, nothing, options).gradient();
  const Tensor some =
      evaluate_matching({moving, image_of(grid, 0.06, DType::f64)}, nothing, options).gradient();
  EXPECT_LT(largest(Variable(none)), 1e-10 * largest(Variable(some)));
}

INSTANTIATE_TEST_SUITE_P(Similarities, ExactGradient,
                         ::testing::Values(Similarity::ssd, Similarity::ncc, Similarity::lncc),
                         [](const auto& suite) {
                           return std::string(suite.param == Similarity::ssd   ? "ssd"
                                              : suite.param == Similarity::ncc ? "ncc"
                                                                               : "lncc");
                         });

TEST(Lddmm, TheReferenceGradientIsNearlyRightAtZeroMomentum) {
  const Grid grid{16, 17, 18};
  const ImagePair pair{image_of(grid, 0.0, DType::f64), image_of(grid, 0.06, DType::f64)};
  MatchingOptions options;
  options.shooting.padding = FftPadding::exact;
  const NoGrad quiet;
  const auto differences_to_gradient = [&](const Tensor& m0) {
    const Variable gradient(reference_gradient(pair, m0, options).gradient);
    const double slope = dot(gradient, gradient).value().item();
    const double step = 1e-3 / std::sqrt(slope);
    const auto energy = [&](double by) {
      return evaluate_matching(pair, (Variable(m0) + by * gradient).value(), options).energy.total();
    };
    return (energy(step) - energy(-step)) / (2.0 * step * slope);
  };
  EXPECT_NEAR(differences_to_gradient(Tensor::zeros(grid.shape(3), DType::f64)), 1.0, 0.07);
}

TEST(Matching, LowersTheEnergyWithoutFolding) {
  const Grid grid{16, 17, 18};
  const ImagePair pair{image_of(grid, 0.0, DType::f32), image_of(grid, 0.1, DType::f32)};
  MatchingOptions options;
  LbfgsOptions lbfgs;
  lbfgs.max_iterations = 12;
  lbfgs.relative_decrease = 0.0;
  std::vector<double> values;
  const LbfgsResult found =
      match(pair, Tensor::zeros(grid.shape(3)), options, lbfgs, [&](const LbfgsProgress& progress) {
        values.push_back(progress.value);
        return true;
      });
  for (std::size_t i = 1; i < values.size(); ++i) EXPECT_LE(values[i], values[i - 1]);
  EXPECT_LT(found.value, 0.2 * found.first_value);
  EXPECT_GT(evaluate_matching(pair, found.point, options).smallest_jacobian, 0.0);
}

TEST(Matching, StopsWhenTold) {
  const Grid grid{10, 11, 12};
  const ImagePair pair{image_of(grid, 0.0, DType::f32), image_of(grid, 0.1, DType::f32)};
  const LbfgsResult found = match(pair, Tensor::zeros(grid.shape(3)), {}, {},
                                  [](const LbfgsProgress& progress) { return progress.iteration < 2; });
  EXPECT_EQ(found.reason, StopReason::interrupted);
  EXPECT_EQ(found.iterations, 2);
}

TEST(Matching, IdenticalImagesStopAtOnce) {
  const Grid grid{10, 11, 12};
  const Tensor image = image_of(grid, 0.0, DType::f32);
  const LbfgsResult found = match({image, image}, Tensor::zeros(grid.shape(3)), {}, {});
  EXPECT_EQ(found.reason, StopReason::zero_gradient);
  EXPECT_EQ(found.iterations, 0);
}

TEST(Matching, TooLargeAFixedStepIsAnErrorNotACrash) {
  const Grid grid{12, 13, 14};
  const ImagePair pair{image_of(grid, 0.0, DType::f32), image_of(grid, 0.1, DType::f32)};
  EXPECT_THROW(descend_fixed_step(pair, Tensor::zeros(grid.shape(3)), {}, 10.0, 20), DivergedFlow);
}

TEST(Matching, MismatchedGridsAreRefused) {
  const ImagePair pair{Tensor::zeros({1, 1, 4, 5, 6}), Tensor::zeros({1, 1, 4, 5, 7})};
  EXPECT_THROW(evaluate_matching(pair, Tensor::zeros({1, 3, 4, 5, 7}), {}), Error);
  const ImagePair finer{Tensor::zeros({1, 1, 8, 10, 12}), Tensor::zeros({1, 1, 8, 10, 12})};
  EXPECT_NO_THROW(evaluate_matching(finer, Tensor::zeros({1, 3, 4, 5, 6}), {}));
  EXPECT_THROW(evaluate_matching(finer, Tensor::zeros({1, 3, 4, 5, 4}), {}), Error);
  EXPECT_THROW(evaluate_matching(finer, Tensor::zeros({1, 3, 16, 20, 24}), {}), Error);
  EXPECT_THROW(reference_gradient(finer, Tensor::zeros({1, 3, 4, 5, 6}), {}), Error);
}

// A difference of 0.5 everywhere on 2 x 2 x 2 finer voxels costs what it does on a grid like the momentum's.
TEST(Matching, FinerImagesCountByTheVoxelOfTheMomentum) {
  MatchingOptions options;
  options.sigma = 0.5;
  const auto data = [&](const Shape& images) {
    const ImagePair pair{Tensor::zeros(images), Tensor::full(images, 0.5, DType::f32, Device::cpu())};
    return evaluate_matching(pair, Tensor::zeros({1, 3, 2, 3, 4}), options).energy.data;
  };
  EXPECT_NEAR(data({1, 1, 2, 3, 4}), 12.0, 1e-5);
  EXPECT_NEAR(data({1, 1, 4, 6, 8}), 12.0, 1e-5);
  EXPECT_NEAR(data({1, 1, 6, 9, 12}), 12.0, 1e-5);
}

// x + 0.1 x in voxels of the coarse grid is x + 0.1 x in those of a finer one too, counted from the same
// corner.
TEST(Matching, ARefinedFlowIsTheSameMap) {
  const Grid grid{4, 5, 6};
  const auto stretch = [](double offset) {
    return [offset](std::int64_t c, std::int64_t x, std::int64_t y, std::int64_t z) {
      const double at[] = {static_cast<double>(x), static_cast<double>(y), static_cast<double>(z)};
      return 0.1 * (at[c] + offset);
    };
  };
  const Variable map(filled(grid, 3, stretch(0.5), DType::f64, Device::cpu()));
  const Flow finer = refined({map, -map}, 3);
  const Tensor expected = filled({12, 15, 18}, 3, stretch(0.5), DType::f64, Device::cpu());
  ASSERT_EQ(finer.phi.shape(), expected.shape());
  for (std::int64_t c = 0; c < 3; ++c) {
    for (std::int64_t z = 1; z < 11; ++z) {  // the outermost voxels lie beyond the coarse centres
      for (std::int64_t y = 1; y < 14; ++y) {
        for (std::int64_t x = 1; x < 17; ++x) {
          const std::int64_t i = ((c * 12 + z) * 15 + y) * 18 + x;
          ASSERT_NEAR(finer.phi.value().data<double>()[i], expected.data<double>()[i], 1e-12);
          ASSERT_NEAR(finer.psi.value().data<double>()[i], -expected.data<double>()[i], 1e-12);
        }
      }
    }
  }
}

}  // namespace
}  // namespace cinnabar
