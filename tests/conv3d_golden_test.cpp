#include <gtest/gtest.h>

#include "autograd/conv3d.hpp"
#include "tests/tensors.hpp"
#include "tests/torch_cases.hpp"

// Outputs and gradients of conv3d and conv_transpose3d against PyTorch's, case by case as the metadata of the
// golden files describe them; on the CPU by every backend that can compute the case.

namespace cinnabar::testing {
namespace {

const std::vector<TorchCase>& cases() {
  static const std::vector<TorchCase> all = torch_cases({"conv3d", "conv_transpose3d"});
  return all;
}

Conv3dOptions conv3d_options(const nlohmann::json& options) {
  Conv3dOptions result;
  result.stride = options.at("stride");
  result.padding = options.at("padding");
  result.dilation = options.at("dilation");
  result.groups = options.at("groups");
  return result;
}

/// The backends that can compute a convolution of these tensors; `far` is its output.
std::vector<Conv3dBackend> backends_for(Device device, const Tensor& near, const Tensor& weight,
                                        const Tensor& far, const Conv3dOptions& options) {
  using enum Conv3dBackend;
  const Conv3dShape shape = conv3d_shape(near, weight, far, options);
  std::vector<Conv3dBackend> backends;
  for (const Conv3dBackend backend : {by_rule, reference, gemm, fft, direct, cudnn}) {
    if (conv3d_has_backend(device, backend) && conv3d_is_eligible(backend, device, shape)) {
      backends.push_back(backend);
    }
  }
  return backends;
}

Variable run_case(const nlohmann::json& json, const Conv3dOptions& options,
                  const std::map<std::string, Variable>& inputs) {
  const std::string op = json.at("op");
  const auto bias = inputs.find("bias");
  const Variable b = bias == inputs.end() ? Variable() : bias->second;
  if (op == "conv3d") return conv3d(inputs.at("input"), inputs.at("weight"), b, options);
  if (op == "conv_transpose3d") {
    return conv_transpose3d(inputs.at("input"), inputs.at("weight"), b, options, json.at("output_padding"));
  }
  fail("golden", "unknown op " + op);
}

class Conv3dGolden : public ::testing::TestWithParam<TorchCase> {
 protected:
  void SetUp() override { skip_unless_available(GetParam().device); }
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Conv3dGolden);

TEST_P(Conv3dGolden, OutputAndGradientsAgree) {
  const TorchCase& golden = GetParam();
  ASSERT_FALSE(golden.options.is_null()) << golden.file << ": " << golden.name;
  const std::map<std::string, Tensor> tensors = golden.read();
  Conv3dOptions options = conv3d_options(golden.options);
  const bool transposed = golden.options.at("op") == "conv_transpose3d";
  const Tensor& near = tensors.at(transposed ? "grad_output" : "input");
  const Tensor& far = tensors.at(transposed ? "input" : "grad_output");
  for (const Conv3dBackend backend : backends_for(golden.device, near, tensors.at("weight"), far, options)) {
    options.backend = backend;
    std::map<std::string, Variable> inputs;
    for (const char* name : {"input", "weight", "bias"}) {
      if (tensors.contains(name)) inputs[name] = Variable(tensors.at(name), true);
    }
    ASSERT_EQ(inputs.contains("bias"), golden.options.at("bias").get<bool>());
    const Variable output = run_case(golden.options, options, inputs);
    output.backward(tensors.at("grad_output"));
    const auto expect_close = [&](const std::string& name, const Tensor& actual) {
      EXPECT_LE(relative_error(actual, tensors.at(name)), golden.tolerance(name))
          << name << ", backend " << static_cast<int>(backend);
    };
    expect_close("output", output.value());
    for (const auto& [name, input] : inputs) {
      ASSERT_TRUE(input.grad().defined()) << name;
      expect_close("grad_" + name, input.grad());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Files, Conv3dGolden, ::testing::ValuesIn(cases()), name_of_torch_case);

TEST(Conv3dGoldenFiles, AreThere) {
  // Whether there are cases of an operation, but for those of a file that is only a part.
  const auto has = [](const std::string& op) {
    return std::any_of(cases().begin(), cases().end(), [&](const TorchCase& golden) {
      return golden.file.stem() != "conv3d_small" && golden.options.is_object() &&
             golden.options.value("op", "") == op;
    });
  };
  if (!has("conv_transpose3d")) GTEST_SKIP() << "no golden file of conv_transpose3d found";
  if (!has("conv3d")) GTEST_SKIP() << "no whole golden file of conv3d found, at most its smaller cases";
}

}  // namespace
}  // namespace cinnabar::testing
