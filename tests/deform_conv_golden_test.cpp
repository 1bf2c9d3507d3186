#include <gtest/gtest.h>

#include "autograd/deform_conv.hpp"
#include "tests/tensors.hpp"
#include "tests/torch_cases.hpp"

// Outputs and gradients of deform_conv against torchvision's deform_conv2d, case by case as the metadata of
// the golden files describe them.

namespace cinnabar::testing {
namespace {

const std::vector<TorchCase>& cases() {
  static const std::vector<TorchCase> all = torch_cases({"deform_conv2d"});
  return all;
}

DeformConvOptions deform_conv_options(const nlohmann::json& options) {
  const auto along_y_and_x = [&](const char* name) {
    const std::array<std::int64_t, 2> pair = options.at(name);
    return std::array<std::int64_t, 3>{1, pair[0], pair[1]};
  };
  DeformConvOptions result;
  result.stride = along_y_and_x("stride");
  result.padding = along_y_and_x("padding");
  result.dilation = along_y_and_x("dilation");
  result.groups = options.at("groups");
  return result;
}

class DeformConvGolden : public ::testing::TestWithParam<TorchCase> {
 protected:
  void SetUp() override { skip_unless_available(GetParam().device); }
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(DeformConvGolden);

TEST_P(DeformConvGolden, OutputAndGradientsAgree) {
  const TorchCase& golden = GetParam();
  ASSERT_FALSE(golden.options.is_null()) << golden.file << ": " << golden.name;
  const std::map<std::string, Tensor> tensors = golden.read();
  std::map<std::string, Variable> inputs;
  for (const char* name : {"input", "offset", "mask", "weight", "bias"}) {
    if (tensors.contains(name)) inputs[name] = Variable(tensors.at(name), true);
  }
  ASSERT_EQ(inputs.contains("mask"), golden.options.at("mask").get<bool>());
  ASSERT_EQ(inputs.contains("bias"), golden.options.at("bias").get<bool>());
  const auto given = [&](const char* name) {
    const auto found = inputs.find(name);
    return found == inputs.end() ? Variable() : found->second;
  };
  const Variable output = deform_conv(given("input"), given("offset"), given("weight"), given("mask"),
                                      given("bias"), deform_conv_options(golden.options));
  output.backward(tensors.at("grad_output"));
  const auto expect_close = [&](const std::string& name, const Tensor& actual) {
    EXPECT_LE(relative_error(actual, tensors.at(name)), golden.tolerance(name)) << name;
  };
  expect_close("output", output.value());
  for (const auto& [name, input] : inputs) {
    ASSERT_TRUE(input.grad().defined()) << name;
    expect_close("grad_" + name, input.grad());
  }
}

INSTANTIATE_TEST_SUITE_P(Files, DeformConvGolden, ::testing::ValuesIn(cases()), name_of_torch_case);

TEST(DeformConvGoldenFiles, AreThere) {
  if (cases().empty()) GTEST_SKIP() << "no golden file of deform_conv2d found";
}

}  // namespace
}  // namespace cinnabar::testing
