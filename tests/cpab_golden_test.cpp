// CPAB fields and flows against golden files from an independent oracle, on each device and dtype.
// CINNABAR_GOLDEN_REPORT=1 in the environment prints the errors found.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "tests/cpab_golden_cases.hpp"

namespace cinnabar::testing {
namespace {

double everywhere(std::int64_t, std::int64_t) {
  return 1.0;
}

TEST_P(CpabGolden, MeshFieldAndCells) {
  EXPECT_LE(relative_error(tessellation_->vertex_positions(), get("vertices")), 1e-15);
  EXPECT_LE(relative_error(tessellation_->matrices_from_nodes(get("nodal")), get("A")), 1e-13);
  std::vector<std::int64_t> ours = tessellation_->cell_vertices().to_vector<std::int64_t>();
  std::vector<std::int64_t> theirs = get("cell_vertices").to_vector<std::int64_t>();
  for (std::int64_t c = 0; c < tessellation_->cells(); ++c) {
    for (auto* members : {&ours, &theirs}) {
      std::sort(members->begin() + c * (dims() + 1), members->begin() + (c + 1) * (dims() + 1));
    }
  }
  EXPECT_EQ(ours, theirs);

  const std::vector<std::int64_t> cell = get("cell").to_vector<std::int64_t>();
  const std::vector<std::int64_t> category = get("category").to_vector<std::int64_t>();
  const std::vector<std::int64_t> candidates = get("cell_candidates").to_vector<std::int64_t>();
  const auto width = static_cast<std::ptrdiff_t>(get("cell_candidates").shape(1));
  const Values x = get("points").to_vector<double>();
  const std::vector<float> narrow = get("points").to_vector<float>();
  for (std::int64_t p = 0; p < points(); ++p) {
    const std::int64_t found = GetParam().f32() ? tessellation_->cell_of(narrow.data() + p * dims())
                                                : tessellation_->cell_of(x.data() + p * dims());
    const auto first = candidates.begin() + p * width;
    const bool on_face = category[at(p)] == 1 || category[at(p)] == 2;
    const bool fits =
        on_face ? std::find(first, first + width, found) != first + width : found == cell[at(p)];
    EXPECT_TRUE(fits) << "point " << p << " of category " << category[at(p)] << " in cell " << found
                      << ", not " << cell[at(p)];
  }
}

TEST_P(CpabGolden, FieldLiesInTheSpaceOfItsConstraints) {
  if (GetParam().f32()) GTEST_SKIP() << "bases are float64";
  const CpabConstraints constraints{flag("zero_boundary"), flag("volume_preservation"), flag("outside_aux")};
  const CpabBasis basis(*tessellation_, constraints);
  EXPECT_EQ(basis.dim(), std::stoi(file_.metadata.at("dim")));
  EXPECT_LE(relative_error(basis.matrices_of(basis.theta_of(get("A"))), get("A")), 1e-12);
}

TEST_P(CpabGolden, Velocity) {
  Tensor velocity = poisoned(get("velocity").shape(), target().dtype, target().device);
  cpab_on(target().device)
      .velocity(on(target(), maps64_), on(target(), get("points")), tessellation_->grid(), velocity);
  expect_points("velocity", back(velocity), get("velocity"), GetParam().f32() ? 2e-6 : 1e-13, everywhere);
}

TEST_P(CpabGolden, TrueFlowAndItsInverse) {
  const double tolerance = GetParam().f32() ? 1e-6 : 1e-10;
  const Tensor inverse_maps = negated(maps64_);
  const auto there = stretch_of(jacobian(maps64_, get("points"), {}));
  const auto back = stretch_of(jacobian(inverse_maps, get("points"), {}));
  const auto home = stretch_of(jacobian(inverse_maps, get("phi"), {}));
  expect_points("phi", flow(maps64_, get("points"), {}), get("phi"), tolerance, there);
  expect_points("phi_inv", flow(inverse_maps, get("points"), {}), get("phi_inv"), tolerance, back);
  expect_points("roundtrip", flow(inverse_maps, flow(maps64_, get("points"), {}), {}), get("roundtrip"),
                tolerance, [&](std::int64_t b, std::int64_t p) {
                  return std::max(there(b, p) * home(b, p), inverse_stretch_at(b, p));
                });
}

TEST_P(CpabGolden, SteppingScheme) {
  for (const int steps : {10, 50, 200}) {
    const std::string name = "disc_phi_N" + std::to_string(steps);
    const auto stretch = stretch_of(jacobian_on(kPrecise, maps64_, get("points"), scheme(steps)));
    expect_points(name.c_str(), flow(maps64_, get("points"), scheme(steps)), get(name),
                  GetParam().f32() ? 5e-6 : 1e-11, [&, gap = settled(steps)](std::int64_t b, std::int64_t p) {
                    return std::isnan(gap(b, p)) ? kSkip : 1.0 + stretch(b, p);
                  });
  }
}

TEST_P(CpabGolden, JacobianOfTheFlow) {
  const Values moved =
      sensitivity([&](const Inputs& inputs) { return jacobian_on(kPrecise, inputs.maps, inputs.x, {}); });
  expect_points("jac_x", jacobian(maps64_, get("points"), {}), get("jac_x"), gradient_tolerance(),
                valid_scale(moved));
  const auto stepped = [&](std::int64_t b, std::int64_t p) {
    return settled(50)(b, p) * stretch_at(get("disc_jac_x_N50"), b, p);
  };
  expect_points("disc_jac_x_N50", jacobian(maps64_, get("points"), scheme(50)), get("disc_jac_x_N50"),
                GetParam().f32() ? 2e-5 : 1e-10, stepped);
}

TEST_P(CpabGolden, GradientsOfTheTrueFlow) {
  const auto precise = [&](const Inputs& inputs) {
    return gradients_on(kPrecise, inputs.maps, seeds(), {}, inputs.x);
  };
  double tolerance = gradient_tolerance();
  if (GetParam().f32()) {
    const Tensor base = precise({maps64_, get("points")}).maps;
    for (const Inputs& inputs : nearby_inputs()) {
      const Tensor moved = precise(inputs).maps;
      for (std::int64_t b = 0; b < 2; ++b) {
        tolerance = std::max(tolerance, 10 * relative_error(moved.rows(b, 1), base.rows(b, 1)));
      }
    }
  }
  const auto [grad_maps, grad_points] = gradients_on(target(), maps64_, seeds(), {}, get("points"));
  expect_cells("grad_A", grad_maps, get("grad_A"), get("grad_nodal"), tolerance);
  const Values moved = sensitivity([&](const Inputs& inputs) { return precise(inputs).points; });
  expect_points("grad_points", grad_points, get("grad_points"), gradient_tolerance(), valid_scale(moved));
}

TEST_P(CpabGolden, GradientsOfTheSteppingScheme) {
  for (const int steps : {10, 50}) {
    const std::string suffix = std::to_string(steps);
    const auto gap = settled(steps);
    bool all_settled = true;  // the sum over points is comparable only then
    for (std::int64_t i = 0; i < 2 * points(); ++i) {
      const bool counts = get("loss_w").data<double>()[i % points() * dims()] != 0.0;
      all_settled = all_settled && (!counts || !std::isnan(gap(i / points(), i % points())));
    }
    const auto [grad_maps, grad_points] =
        gradients_on(target(), maps64_, seeds(), scheme(steps), get("points"));
    if (all_settled) {
      expect_cells("disc_grad_nodal", grad_maps, {}, get("disc_grad_nodal_N" + suffix),
                   GetParam().f32() ? 2e-5 : 1e-9);
    }
    expect_points("disc_grad_points", grad_points, get("disc_grad_points_N" + suffix),
                  GetParam().f32() ? 2e-5 : 1e-9, [&](std::int64_t b, std::int64_t p) {
                    double largest = 1.0;
                    for (std::int64_t a = 0; a < dims(); ++a) {
                      const std::int64_t k = (b * points() + p) * dims() + a;
                      largest += std::abs(get("disc_grad_points_N" + suffix).data<double>()[k]);
                    }
                    return gap(b, p) * largest;
                  });
  }
}

TEST_P(CpabGolden, DerivativesAlongDirectionsInTheField) {
  // The gradient of one coordinate of one point, for all of them at once: a batch of one-point problems.
  if (GetParam().f32()) GTEST_SKIP() << "float32 is compared in the tests of the gradients";
  for (const bool exact : {true, false}) {
    const Tensor expected = get(exact ? "dphi_dA" : "disc_dphi_dA_N50");  // [2, K, P, d]
    const auto gap = settled(50);
    for (std::int64_t b = 0; b < 2; ++b) {
      const Tensor slopes = slopes_along(b, exact ? CpabOptions{} : scheme(50));
      double worst = 0.0;
      for (std::int64_t i = 0; i < slopes.numel(); ++i) {
        const std::int64_t p = i / dims() % points();
        if (exact ? !is_valid(b, p) : std::isnan(gap(b, p))) continue;
        const double reference = expected.data<double>()[b * slopes.numel() + i];
        const double error = std::abs(slopes.data<double>()[i] - reference) / (1.0 + std::abs(reference));
        if (!std::isnan(worst) && !(error <= worst)) worst = error;
      }
      EXPECT_LE(worst, GetParam().f32() ? 2e-5 : 1e-9)
          << (exact ? "true flow" : "scheme") << ", batch entry " << b;
    }
  }
}

std::string name_of_case(const ::testing::TestParamInfo<CpabCase>& info) {
  const auto& [path, target] = info.param;
  std::ostringstream name;
  name << info.index << '_' << path.stem().string() << '_' << (target.device.is_cpu() ? "cpu" : "cuda") << '_'
       << target.dtype;
  return as_test_name(name.str());
}

INSTANTIATE_TEST_SUITE_P(Files, CpabGolden, ::testing::ValuesIn(cpab_golden_cases()), name_of_case);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(CpabGolden);

TEST(CpabGoldenFiles, AreThere) {
  if (cpab_golden_cases().empty()) GTEST_SKIP() << "no golden files of CPAB found";
}

}  // namespace
}  // namespace cinnabar::testing
