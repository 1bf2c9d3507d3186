#include "kernels/cpab_basis.hpp"

#include <gtest/gtest.h>

#include <Eigen/Dense>
#include <cmath>

#include "kernels/cpab_record.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

using RowMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

RowMatrix as_matrix(const Tensor& tensor, std::int64_t columns) {
  return Eigen::Map<const RowMatrix>(tensor.data<double>(), tensor.numel() / columns, columns);
}

std::int64_t unknowns_of(const CpabTessellation& tessellation) {
  return tessellation.cells() * tessellation.dims() * (tessellation.dims() + 1);
}

std::int64_t dim_of(const std::vector<std::int32_t>& boxes, const CpabConstraints& constraints) {
  return CpabBasis(CpabTessellation(boxes), constraints).dim();
}

TEST(CpabBasis, DimensionsAreThoseOfThePapers) {
  struct Row {
    std::vector<std::int32_t> boxes;
    std::int64_t zero_boundary, both, free, outside, free_volume, outside_volume;
  };
  const std::vector<Row> rows{
      {{5}, 4, 0, 6, 6, 1, 1},
      {{10}, 9, 0, 11, 11, 1, 1},
      {{20}, 19, 0, 21, 21, 1, 1},
      {{2, 2}, 14, 3, 26, 20, 14, 10},
      {{3, 3}, 34, 8, 50, 34, 23, 11},
      {{5, 4}, 78, 19, 100, 72, 40, 16},
      {{4, 3}, 46, 11, 64, 44, 28, 12},
      {{2, 5}, 38, 9, 56, 36, 26, 12},
      {{6, 6}, 142, 35, 170, 130, 62, 27},
      {{1, 1}, 2, 0, 10, 10, 7, 7},
      {{1, 1, 1}, 0, 0, 24, 15, 19, 11},
      {{2, 2, 2}, 27, 3, 81, 48, 45, 17},
      {{3, 3, 3}, 96, 11, 192, 78, 85, 23},
      {{2, 3, 4}, 86, 2, 180, 69, 83, 23},
      {{4, 3, 2}, 86, 2, 180, 69, 83, 23},
      {{3, 2, 2}, 42, 2, 108, 42, 57, 19},
      {{2, 2, 3}, 42, 2, 108, 42, 57, 19},
      {{1, 2, 3}, 20, 0, 72, 24, 44, 17},
      {{4, 4, 4}, 225, 20, 375, 201, 135, 29},
  };
  for (const Row& row : rows) {
    const std::string name = ::testing::PrintToString(row.boxes);
    EXPECT_EQ(dim_of(row.boxes, {}), row.zero_boundary) << name;
    EXPECT_EQ(dim_of(row.boxes, {.volume_preserving = true}), row.both) << name;
    EXPECT_EQ(dim_of(row.boxes, {.zero_boundary = false}), row.free) << name;
    EXPECT_EQ(dim_of(row.boxes, {.zero_boundary = false, .valid_outside = true}), row.outside) << name;
    EXPECT_EQ(dim_of(row.boxes, {.zero_boundary = false, .volume_preserving = true}), row.free_volume)
        << name;
    EXPECT_EQ(dim_of(row.boxes, {false, true, true}), row.outside_volume) << name;
  }
}

TEST(CpabBasis, SpansTheNullSpaceOfTheConstraintsOrthonormally) {
  for (const std::vector<std::int32_t>& boxes : {std::vector<std::int32_t>{7}, {3, 2}, {2, 1, 2}}) {
    for (int mask = 0; mask < 8; ++mask) {
      const CpabConstraints constraints{(mask & 1) != 0, (mask & 2) != 0, (mask & 4) != 0};
      const CpabBasis basis(CpabTessellation(boxes), constraints);
      const std::int64_t unknowns = unknowns_of(basis.tessellation());
      const RowMatrix rows = as_matrix(cpab_constraint_matrix(basis.tessellation(), constraints), unknowns);
      Eigen::ColPivHouseholderQR<RowMatrix> qr(rows);
      qr.setThreshold(1e-9);
      EXPECT_EQ(basis.dim(), unknowns - qr.rank()) << ::testing::PrintToString(boxes) << mask;
      if (basis.dim() == 0) continue;
      const RowMatrix b = as_matrix(basis.matrices(), unknowns);
      EXPECT_LE((rows * b.transpose()).cwiseAbs().maxCoeff(), 1e-12) << mask;
      EXPECT_LE((b * b.transpose() - RowMatrix::Identity(b.rows(), b.rows())).cwiseAbs().maxCoeff(), 1e-12);
      EXPECT_LE(relative_error(basis.tessellation().matrices_from_nodes(basis.nodes()), basis.matrices()),
                1e-11);
    }
  }
}

TEST(CpabBasis, OrderAndSignsAreThoseOfGramSchmidt) {
  // The first field moves the first free vertex alone, upwards; 1-D: a tent over the first inner vertex.
  const CpabBasis basis(CpabTessellation({4}), {});
  const std::vector<double> nodes = basis.nodes().rows(0, 1).to_vector<double>();
  EXPECT_GT(nodes[1], 0.0);
  for (const std::size_t other : {0u, 2u, 3u, 4u}) EXPECT_NEAR(nodes[other], 0.0, 1e-15) << other;
}

TEST(CpabBasis, ThetaAndMatricesAreInverse) {
  const CpabBasis basis(CpabTessellation({3, 4}), {.zero_boundary = false});
  const Tensor theta = random_tensor({2, basis.dim()}, 1, -1, 1, DType::f64);
  const Tensor matrices = basis.matrices_of(theta);
  EXPECT_LE(relative_error(basis.theta_of(matrices), theta), 1e-12);
  EXPECT_LE(relative_error(
                basis.tessellation().matrices_from_maps(basis.tessellation().maps_from_matrices(matrices)),
                matrices),
            1e-13);
}

TEST(CpabBasis, PriorIsSmoothAndItsSamplesHaveItsCovariance) {
  const CpabBasis basis(CpabTessellation({3}), {});
  const Tensor covariance = basis.prior_covariance(0.5, 2.0);
  const RowMatrix expected = as_matrix(covariance, basis.dim());
  const Eigen::SelfAdjointEigenSolver<RowMatrix> eigen(expected);
  EXPECT_GE(eigen.eigenvalues().minCoeff(), -1e-12);
  const std::int64_t count = 20000;
  const RowMatrix samples = as_matrix(basis.sample_prior(count, 0.5, 2.0, {3, 1, 0}), basis.dim());
  const RowMatrix found = samples.transpose() * samples / static_cast<double>(count);
  EXPECT_LE((found - expected).cwiseAbs().maxCoeff(), 0.05 * expected.cwiseAbs().maxCoeff());
  EXPECT_TRUE(
      same_values(basis.sample_prior(5, 0.5, 2.0, {3, 1, 0}), basis.sample_prior(5, 0.5, 2.0, {3, 1, 0})));
  EXPECT_THROW(basis.prior_covariance(0.0, 1.0), Error);
}

TEST(CpabTessellation, EveryCornerAndFaceOfACellAgrees) {
  const auto check = [](auto dims) {
    constexpr int D = decltype(dims)::value;
    for (int parity = 0; parity < (D == 3 ? 2 : 1); ++parity) {
      for (int type = 0; type < kCpabCellsPerBox<D>; ++type) {
        double centre[3] = {};
        for (int k = 0; k <= D; ++k) {
          double u[D];
          cpab_corner<double, D>(parity, type, k, u);
          int on_faces = 0;
          for (int face = 0; face <= D; ++face) {
            const double height = cpab_face<double, D>(parity, type, face)(u);
            EXPECT_GE(height, 0.0);
            on_faces += height == 0.0 ? 1 : 0;
          }
          EXPECT_EQ(on_faces, D) << "corner " << k << " of type " << type;
          for (int a = 0; a < D; ++a) centre[a] += u[a] / (D + 1);
        }
        EXPECT_EQ((cpab_type<double, D>(parity, centre)), type);
      }
    }
  };
  check(std::integral_constant<int, 1>{});
  check(std::integral_constant<int, 2>{});
  check(std::integral_constant<int, 3>{});
}

TEST(CpabTessellation, WalkingThroughAFaceAgreesWithTheLookupBehindIt) {
  const CpabGrid grid{3, {3, 2, 4}};
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    const Tensor random = random_tensor({3}, seed, 0.0, 1.0, DType::f64);
    double s[3], u[3];
    for (int a = 0; a < 3; ++a) s[a] = random.data<double>()[a] * grid.boxes[a];
    const CpabPlace<3> place = cpab_locate<double, 3>(grid, s, u);
    for (int face = 0; face <= 3; ++face) {
      // A point just behind the middle of the face.
      double behind[3] = {};
      const CpabFace<double, 3> plane = cpab_face<double, 3>(place.parity(), place.type, face);
      for (int k = 0; k <= 3; ++k) {
        double corner[3];
        cpab_corner<double, 3>(place.parity(), place.type, k, corner);
        for (int a = 0; a < 3 && plane(corner) == 0.0; ++a) behind[a] += corner[a] / 3;
      }
      for (int a = 0; a < 3; ++a) behind[a] -= 1e-9 * plane.normal[a];
      CpabPlace<3> next = place;
      double next_u[3] = {behind[0], behind[1], behind[2]};
      cpab_go_through<double, 3>(grid, face, next, next_u);
      double found_u[3];
      for (int a = 0; a < 3; ++a) s[a] = behind[a] + place.box[a];
      EXPECT_EQ(next.cell(grid), (cpab_locate<double, 3>(grid, s, found_u).cell(grid)));
    }
  }
}

TEST(CpabTessellation, UpperBoundaryBelongsToTheLastBoxInFloat32Too) {
  const CpabTessellation tessellation({3, 2, 5});
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    std::vector<float> point = random_tensor({3}, seed, 0.0, 1.0).to_vector<float>();
    point[seed % 3] = 1.0f;
    const std::vector<double> wide(point.begin(), point.end());
    EXPECT_EQ(tessellation.cell_of(point.data()), tessellation.cell_of(wide.data()));
    const std::int64_t box = tessellation.cell_of(point.data()) / 5;
    const std::int64_t at[3] = {box % 3, box / 3 % 2, box / 6};
    EXPECT_EQ(at[seed % 3], tessellation.grid().boxes[seed % 3] - 1);
    point[seed % 3] = 1.5f;
    EXPECT_EQ(tessellation.cell_of(point.data()) / 5, box);
  }
}

TEST(CpabTessellation, RefusesMisfits) {
  EXPECT_THROW(CpabTessellation({}), Error);
  EXPECT_THROW(CpabTessellation({2, 0}), Error);
  EXPECT_THROW(CpabTessellation({2, 2, 2, 2}), Error);
  EXPECT_THROW(CpabTessellation({1 << 20, 1 << 20}), Error);
  const CpabTessellation tessellation({2, 3});
  EXPECT_THROW(tessellation.maps_from_matrices(Tensor::zeros({1, 24, 2, 2}, DType::f64)), Error);
  EXPECT_THROW(tessellation.maps_from_matrices(Tensor::zeros({1, 24, 2, 3})), Error);
  EXPECT_THROW(CpabBasis(tessellation, {}).matrices_of(Tensor::zeros({1, 3}, DType::f64)), Error);
}

}  // namespace
}  // namespace cinnabar::testing
