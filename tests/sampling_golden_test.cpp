#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "autograd/affine_grid.hpp"
#include "autograd/grid_sample.hpp"
#include "autograd/upsample.hpp"
#include "engine/safetensors.hpp"
#include "tests/devices.hpp"
#include "tests/golden_cases.hpp"
#include "tests/tensors.hpp"

// Outputs and gradients of grid_sample, affine_grid and interpolate against PyTorch's, case by case as the
// metadata of the golden files describe them.

namespace cinnabar::testing {
namespace {

struct GoldenCase {
  std::filesystem::path file;
  std::string name;
  nlohmann::json options;  // null where the file could not be read; `name` then says why
  Device device;
  DType dtype = DType::f32;
};

void PrintTo(const GoldenCase& golden, std::ostream* out) {
  *out << golden.file.string() << ": " << golden.name << ' ' << golden.options;
}

std::vector<GoldenCase> cases_of(const std::filesystem::path& path) {
  std::vector<GoldenCase> found;
  try {
    const SafeTensorsFile file(path);
    const std::vector<std::string> names = file.names();
    for (const auto& [key, text] : file.metadata()) {
      const bool has_tensors =
          std::any_of(names.begin(), names.end(),
                      [prefix = key + "."](const auto& name) { return name.rfind(prefix, 0) == 0; });
      if (!has_tensors) continue;
      const nlohmann::json options = nlohmann::json::parse(text);
      found.push_back({path, key, options, Device::cpu(), DType::f32});
      found.push_back({path, key, options, Device::cpu(), DType::f64});
      found.push_back({path, key, options, Device::cuda(), DType::f32});
    }
  } catch (const std::exception& error) {
    found.push_back({path, error.what(), {}, Device::cpu(), DType::f32});
  }
  return found;
}

const std::vector<GoldenCase>& golden_cases() {
  static const std::vector<GoldenCase> cases = [] {
    std::vector<GoldenCase> all;
    for (const char* family : {"grid_sample", "affine_grid", "upsample"}) {
      for (const auto& path : golden_files(family)) {
        if (path.filename().string().find(family) == std::string::npos) continue;
        const std::vector<GoldenCase> found = cases_of(path);
        all.insert(all.end(), found.begin(), found.end());
      }
    }
    return all;
  }();
  return cases;
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
  CINNABAR_CHECK(!options.contains("recompute_scale_factor") || options["recompute_scale_factor"].is_null() ||
                     !options["recompute_scale_factor"],
                 "golden", "recomputed scale factors are not covered");
  const Interpolation interpolation = mode == "nearest" ? Interpolation::nearest : Interpolation::linear;
  const bool align_corners = options.at("align_corners").is_boolean() && options["align_corners"];
  if (!options.at("size").is_null()) {
    return upsample_to(input, spatial_of(options["size"], 0), interpolation, align_corners);
  }
  const nlohmann::json& factor = options.at("scale_factor");
  const auto rank = static_cast<std::size_t>(input.value().rank() - 2);
  const auto factors =
      factor.is_array() ? factor.get<std::vector<double>>() : std::vector<double>(rank, factor.get<double>());
  return upsample_by(input, factors, interpolation, align_corners);
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

class SamplingGolden : public ::testing::TestWithParam<GoldenCase> {
 protected:
  void SetUp() override { skip_unless_available(GetParam().device); }
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(SamplingGolden);

TEST_P(SamplingGolden, OutputAndGradientsAgree) {
  const GoldenCase& golden = GetParam();
  ASSERT_FALSE(golden.options.is_null()) << golden.file << ": " << golden.name;
  const SafeTensorsFile file(golden.file);
  const auto name_of_tensor = [&](const std::string& tensor) {
    const std::string preferred = golden.name + "." + tensor + "_half_even";  // where versions differ
    return file.contains(preferred) ? preferred : golden.name + "." + tensor;
  };
  std::map<std::string, Variable> inputs;
  for (const char* name : {"input", "grid", "theta"}) {
    const std::string tensor = golden.name + "." + name;
    if (file.contains(tensor)) {
      inputs[name] = Variable(file.read(tensor).to(golden.dtype).to(golden.device), true);
    }
  }
  const Variable output = run_case(golden.options, inputs);
  output.backward(file.read(golden.name + ".grad_output").to(golden.dtype).to(golden.device));

  const auto expect_close = [&](const std::string& tensor, const Tensor& actual) {
    const auto stated = golden.options.value("torch_f32_max_err_over_max_abs", nlohmann::json::object());
    // References are rounded to float32 once, which is all that a float64 result may be off.
    const double tolerance =
        golden.dtype == DType::f64 ? 2e-7 : std::max(10 * stated.value(tensor, 0.0), 2e-6);
    EXPECT_LE(relative_error(actual, file.read(name_of_tensor(tensor))), tolerance) << tensor;
  };
  expect_close("output", output.value());
  for (const auto& [name, input] : inputs) {
    ASSERT_TRUE(file.contains(golden.name + ".grad_" + name)) << name;
    ASSERT_TRUE(input.grad().defined()) << name;
    expect_close("grad_" + name, input.grad());
  }
}

std::string name_of_case(const ::testing::TestParamInfo<GoldenCase>& info) {
  std::ostringstream name;
  name << info.index << '_' << info.param.file.stem().string() << '_' << info.param.name << '_'
       << (info.param.device.is_cpu() ? "cpu" : "cuda") << '_' << info.param.dtype;
  std::string text = name.str();
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return text;
}

INSTANTIATE_TEST_SUITE_P(Files, SamplingGolden, ::testing::ValuesIn(golden_cases()), name_of_case);

TEST(SamplingGoldenFiles, AreThere) {
  if (golden_cases().empty()) GTEST_SKIP() << "no golden files of grid_sample, affine_grid or upsample found";
}

}  // namespace
}  // namespace cinnabar::testing
