#include <gtest/gtest.h>

#include <cmath>

#include "autograd/affine_grid.hpp"
#include "autograd/grid_sample.hpp"
#include "autograd/upsample.hpp"
#include "tests/tensors.hpp"
#include "tests/torch_cases.hpp"

// Outputs and gradients of grid_sample, affine_grid and interpolate against PyTorch's, case by case as the
// metadata of the golden files describe them.

namespace cinnabar::testing {
namespace {

const std::vector<TorchCase>& cases() {
  static const std::vector<TorchCase> all = torch_cases({"grid_sample", "affine_grid", "upsample"});
  return all;
}

GridSampleOptions grid_sample_options(const nlohmann::json& options) {
  const std::string mode = options.at("mode");
  const std::string padding = options.at("padding_mode");
  GridSampleOptions result;
  CINNABAR_CHECK(mode == "bilinear" || mode == "nearest", "golden", "unknown mode ", mode);
  CINNABAR_CHECK(padding == "zeros" || padding == "border" || padding == "reflection", "golden",
                 "unknown padding ", padding);
  result.interpolation = mode == "nearest" ? Interpolation::nearest : Interpolation::linear;
  result.boundary = padding == "zeros"    ? Boundary::zeros
                    : padding == "border" ? Boundary::border
                                          : Boundary::reflection;
  result.align_corners = options.at("align_corners");
  return result;
}

Shape spatial_of(const nlohmann::json& size, std::size_t skipped) {
  const auto extents = size.get<std::vector<std::int64_t>>();
  return Shape(std::span(extents).subspan(skipped));
}

Variable run_interpolate(const nlohmann::json& options, const Variable& input) {
  const std::string mode = options.at("mode");
  CINNABAR_CHECK(mode == "nearest" || mode == "bilinear" || mode == "trilinear", "golden", "unknown mode ",
                 mode);
  const Interpolation interpolation = mode == "nearest" ? Interpolation::nearest : Interpolation::linear;
  const bool align_corners = options.at("align_corners").is_boolean() && options["align_corners"];
  if (!options.at("size").is_null()) {
    return upsample_to(input, spatial_of(options["size"], 0), interpolation, align_corners);
  }
  const nlohmann::json& factor = options.at("scale_factor");
  const auto rank = static_cast<std::size_t>(input.value().rank() - 2);
  const auto factors =
      factor.is_array() ? factor.get<std::vector<double>>() : std::vector<double>(rank, factor.get<double>());
  const nlohmann::json recompute = options.value("recompute_scale_factor", nlohmann::json());
  if (recompute.is_null() || !recompute) return upsample_by(input, factors, interpolation, align_corners);
  std::vector<std::int64_t> extents;  // the ratios of extents then place the samples
  for (std::size_t k = 0; k < rank; ++k) {
    const auto extent = static_cast<double>(input.shape()[static_cast<int>(k) + 2]);
    extents.push_back(static_cast<std::int64_t>(std::floor(extent * factors[k])));
  }
  return upsample_to(input, Shape(extents), interpolation, align_corners);
}

/// Runs the op a case names on its inputs.
Variable run_case(const nlohmann::json& options, std::map<std::string, Variable>& inputs) {
  const std::string op = options.at("op");
  if (op == "grid_sample") {
    return grid_sample(inputs.at("input"), inputs.at("grid"), grid_sample_options(options));
  }
  if (op == "affine_grid" || op == "affine_grid+grid_sample") {
    const Variable grid =
        affine_grid(inputs.at("theta"), spatial_of(options.at("size"), 2), options.at("align_corners"));
    return op == "affine_grid" ? grid : grid_sample(inputs.at("input"), grid, grid_sample_options(options));
  }
  if (op == "interpolate") return run_interpolate(options, inputs.at("input"));
  fail("golden", "unknown op " + op);
}

class SamplingGolden : public ::testing::TestWithParam<TorchCase> {
 protected:
  void SetUp() override { skip_unless_available(GetParam().device); }
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SamplingGolden);

TEST_P(SamplingGolden, OutputAndGradientsAgree) {
  const TorchCase& golden = GetParam();
  ASSERT_FALSE(golden.options.is_null()) << golden.file << ": " << golden.name;
  const std::map<std::string, Tensor> tensors = golden.read();
  std::map<std::string, Variable> inputs;
  for (const char* name : {"input", "grid", "theta"}) {
    if (tensors.contains(name)) inputs[name] = Variable(tensors.at(name), true);
  }
  const Variable output = run_case(golden.options, inputs);
  output.backward(tensors.at("grad_output"));

  const auto expect_close = [&](const std::string& name, const Tensor& actual) {
    const auto preferred = tensors.find(name + "_half_even");  // where versions differ
    const Tensor& expected = preferred == tensors.end() ? tensors.at(name) : preferred->second;
    EXPECT_LE(relative_error(actual, expected), golden.tolerance(name)) << name;
  };
  expect_close("output", output.value());
  for (const auto& [name, input] : inputs) {
    ASSERT_TRUE(tensors.contains("grad_" + name)) << name;
    ASSERT_TRUE(input.grad().defined()) << name;
    expect_close("grad_" + name, input.grad());
  }
}

INSTANTIATE_TEST_SUITE_P(Files, SamplingGolden, ::testing::ValuesIn(cases()), name_of_torch_case);

TEST(SamplingGoldenFiles, AreThere) {
  if (cases().empty()) GTEST_SKIP() << "no golden files of grid_sample, affine_grid or upsample found";
}

}  // namespace
}  // namespace cinnabar::testing
