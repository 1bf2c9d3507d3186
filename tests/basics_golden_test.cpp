#include <gtest/gtest.h>

#include "autograd/elementwise.hpp"
#include "autograd/layout.hpp"
#include "autograd/matmul.hpp"
#include "autograd/reduce.hpp"
#include "tests/tensors.hpp"
#include "tests/torch_cases.hpp"

// Outputs and gradients of matrix products, reductions, concatenation and activations against PyTorch's, case
// by case as the metadata of the golden files describe them.

namespace cinnabar::testing {
namespace {

using Inputs = std::map<std::string, Variable>;

const std::vector<TorchCase>& cases() {
  static const std::vector<TorchCase> all = torch_cases({"linalg", "activations"});
  return all;
}

Axes axes_of(const nlohmann::json& options) {
  const nlohmann::json dim = options.value("dim", nlohmann::json("all"));
  if (dim.is_number()) return {dim.get<int>()};
  if (dim.is_array()) return dim.get<Axes>();
  CINNABAR_CHECK(dim.is_null() || dim == "all", "golden", "unknown dim ", dim.dump());
  return {};
}

/// The result of a reduction or softmax, or an undefined Variable where `op` is none.
Variable run_reduction(const std::string& op, const nlohmann::json& options, const Variable& input) {
  const Axes axes = axes_of(options);
  const bool keepdim = options.value("keepdim", false);
  if (op == "sum") return sum(input, axes, keepdim);
  if (op == "mean") return mean(input, axes, keepdim);
  if (op == "prod") return prod(input, axes, keepdim);
  if (op == "max" || op == "amax") return amax(input, axes, keepdim);
  if (op == "min" || op == "amin") return amin(input, axes, keepdim);
  if (op == "var") return var(input, axes, options.value("unbiased", true), keepdim);
  if (op == "std") return stddev(input, axes, options.value("unbiased", true), keepdim);
  if (op == "logsumexp") return logsumexp(input, axes, keepdim);
  if (op == "softmax") return softmax(input, axes);
  if (op == "log_softmax") return log_softmax(input, axes);
  if (op == "cumsum") return cumsum(input, options.at("dim").get<int>());
  if (op == "norm") {
    const double p = options.value("p", 2.0);
    CINNABAR_CHECK(p == 1.0 || p == 2.0, "golden", "norm with p = ", p, " is not covered");
    return norm(input, static_cast<int>(p), axes, keepdim);
  }
  return {};
}

/// The result of a pointwise function, or an undefined Variable where `op` is none.
Variable run_pointwise(const std::string& op, const nlohmann::json& options, const Inputs& inputs) {
  const Variable& input = inputs.at("input");
  if (op == "prelu") return prelu(input, inputs.at("weight"));
  if (op == "relu") return relu(input);
  if (op == "leaky_relu") return leaky_relu(input, options.value("slope", 0.01));
  if (op == "elu") return elu(input, options.value("alpha", 1.0));
  if (op == "sigmoid") return sigmoid(input);
  if (op == "tanh") return tanh(input);
  if (op == "softplus") return softplus(input);
  if (op == "exp") return exp(input);
  if (op == "log") return log(input);
  if (op == "sqrt") return sqrt(input);
  if (op == "abs") return abs(input);
  return {};
}

Variable run_case(const nlohmann::json& options, const Inputs& inputs) {
  const std::string op = options.at("op");
  if (op == "matmul") {
    return matmul(inputs.at("a"), inputs.at("b"), options.value("transpose_a", false),
                  options.value("transpose_b", false));
  }
  if (op == "linear") {
    const auto bias = inputs.find("bias");
    return linear(inputs.at("input"), inputs.at("weight"), bias == inputs.end() ? Variable() : bias->second);
  }
  if (op == "cat") {
    std::vector<Variable> parts;
    for (auto part = inputs.find("x0"); part != inputs.end();) {
      parts.push_back(part->second);
      part = inputs.find(std::string("x").append(std::to_string(parts.size())));
    }
    return concat(parts, options.at("dim"));
  }
  Variable result;
  if (inputs.contains("input")) {
    result = run_reduction(op, options, inputs.at("input"));
    if (!result.defined()) result = run_pointwise(op, options, inputs);
  }
  if (!result.defined()) fail("golden", "unknown op " + op);
  return result;
}

class BasicsGolden : public ::testing::TestWithParam<TorchCase> {
 protected:
  void SetUp() override { skip_unless_available(GetParam().device); }
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(BasicsGolden);

TEST_P(BasicsGolden, OutputAndGradientsAgree) {
  const TorchCase& golden = GetParam();
  ASSERT_FALSE(golden.options.is_null()) << golden.file << ": " << golden.name;
  const std::map<std::string, Tensor> tensors = golden.read();
  Inputs inputs;
  for (const auto& [name, tensor] : tensors) {
    if (name != "output" && name.rfind("grad_", 0) != 0) inputs[name] = Variable(tensor, true);
  }
  const Variable output = run_case(golden.options, inputs);
  EXPECT_LE(relative_error(output.value(), tensors.at("output")), golden.tolerance("output"));
  output.backward(tensors.at("grad_output"));
  for (const auto& [name, expected] : tensors) {
    if (name.rfind("grad_", 0) != 0 || name == "grad_output") continue;
    const Variable& input = inputs.at(name.substr(5));
    ASSERT_TRUE(input.grad().defined()) << name;
    EXPECT_LE(relative_error(input.grad(), expected), golden.tolerance(name)) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Files, BasicsGolden, ::testing::ValuesIn(cases()), name_of_torch_case);

TEST(BasicsGoldenFiles, AreThere) {
  if (cases().empty()) GTEST_SKIP() << "no golden files of linalg or activations found";
}

}  // namespace
}  // namespace cinnabar::testing
