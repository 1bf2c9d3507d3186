#include <gtest/gtest.h>

#include "autograd/losses.hpp"
#include "autograd/norm.hpp"
#include "autograd/pool3d.hpp"
#include "tests/tensors.hpp"
#include "tests/torch_cases.hpp"

// Outputs and gradients of pooling, normalisation and losses against PyTorch's, case by case as the metadata
// of the golden files describe them.

namespace cinnabar::testing {
namespace {

using Tensors = std::map<std::string, Tensor>;
using Inputs = std::map<std::string, Variable>;

const std::vector<TorchCase>& cases() {
  static const std::vector<TorchCase> all = torch_cases({"pool3d", "norms", "losses"});
  return all;
}

Variable find(const Inputs& inputs, const std::string& name) {
  const auto found = inputs.find(name);
  return found == inputs.end() ? Variable() : found->second;
}

PoolOptions pool_options(const nlohmann::json& options) {
  PoolOptions result;
  options.at("kernel").get_to(result.kernel);
  options.at("stride").get_to(result.stride);
  options.at("padding").get_to(result.padding);
  if (options.contains("dilation")) options.at("dilation").get_to(result.dilation);
  result.ceil_mode = options.value("ceil_mode", false);
  result.count_include_pad = options.value("count_include_pad", true);
  if (options.contains("divisor_override") && !options.at("divisor_override").is_null()) {
    result.divisor = options.at("divisor_override");
  }
  return result;
}

/// What a case yields: the output to differentiate, and further results by their names in the file.
struct Results {
  Variable output;
  Tensors others;
};

Results run_norm(const std::string& op, const nlohmann::json& options, const Inputs& inputs,
                 const Tensors& tensors) {
  const Variable& input = inputs.at("input");
  const Variable weight = find(inputs, "weight");
  const Variable bias = find(inputs, "bias");
  const double epsilon = options.at("eps");
  if (op == "instance_norm") return {instance_norm(input, weight, bias, epsilon), {}};
  if (op == "group_norm") return {group_norm(input, options.at("groups"), weight, bias, epsilon), {}};
  if (op == "layer_norm") {
    return {layer_norm(input, static_cast<int>(options.at("normalized_shape").size()), weight, bias, epsilon),
            {}};
  }
  CINNABAR_CHECK(op == "batch_norm", "golden", "unknown op ", op);
  RunningStatistics running{tensors.at("running_mean").clone(), tensors.at("running_var").clone(), {}};
  Variable output =
      batch_norm(input, weight, bias, running, options.at("training"), options.at("momentum"), epsilon);
  return {output, {{"running_mean_after", running.mean}, {"running_var_after", running.variance}}};
}

LossReduction reduction_of(const nlohmann::json& options) {
  const std::string name = options.at("reduction");
  if (name == "none") return LossReduction::none;
  return name == "sum" ? LossReduction::sum : LossReduction::mean;
}

/// The value of a loss, or an undefined Variable where `op` is none.
Variable run_loss(const std::string& op, const nlohmann::json& options, const Inputs& inputs,
                  const Tensors& tensors) {
  if (op == "cross_entropy") {
    const auto weight = tensors.find("class_weight");
    return cross_entropy_loss(inputs.at("logits"), tensors.at("labels"),
                              weight == tensors.end() ? Tensor{} : weight->second, reduction_of(options),
                              {options.at("label_smoothing"), options.at("ignore_index")});
  }
  if (op == "l1") return l1_loss(inputs.at("input"), inputs.at("target"), reduction_of(options));
  if (op == "mse") return mse_loss(inputs.at("input"), inputs.at("target"), reduction_of(options));
  if (op == "smooth_l1") {
    return smooth_l1_loss(inputs.at("input"), inputs.at("target"), options.at("beta"), reduction_of(options));
  }
  return {};
}

Results run_case(const nlohmann::json& options, const Inputs& inputs, const Tensors& tensors) {
  const std::string op = options.at("op");
  if (op == "max_pool3d") {
    const PooledMaxima maxima = max_pool3d_with_indices(inputs.at("input"), pool_options(options));
    return {maxima.output, {{"indices", maxima.indices}}};
  }
  if (op == "avg_pool3d") return {average_pool3d(inputs.at("input"), pool_options(options)), {}};
  const Variable loss = run_loss(op, options, inputs, tensors);
  return loss.defined() ? Results{loss, {}} : run_norm(op, options, inputs, tensors);
}

class LayersGolden : public ::testing::TestWithParam<TorchCase> {
 protected:
  void SetUp() override { skip_unless_available(GetParam().device); }
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(LayersGolden);

TEST_P(LayersGolden, OutputAndGradientsAgree) {
  const TorchCase& golden = GetParam();
  ASSERT_FALSE(golden.options.is_null()) << golden.file << ": " << golden.name;
  const Tensors tensors = golden.read();
  Inputs inputs;
  for (const auto& [name, tensor] : tensors) {
    if (tensors.contains("grad_" + name) && name != "output") inputs[name] = Variable(tensor, true);
  }
  const Results results = run_case(golden.options, inputs, tensors);
  EXPECT_LE(relative_error(results.output.value(), tensors.at("output")), golden.tolerance("output"));
  for (const auto& [name, tensor] : results.others) {
    EXPECT_LE(relative_error(tensor, tensors.at(name)), golden.tolerance(name)) << name;
  }
  results.output.backward(tensors.at("grad_output"));
  for (const auto& [name, input] : inputs) {
    ASSERT_TRUE(input.grad().defined()) << name;
    EXPECT_LE(relative_error(input.grad(), tensors.at("grad_" + name)), golden.tolerance("grad_" + name))
        << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Files, LayersGolden, ::testing::ValuesIn(cases()), name_of_torch_case);

TEST(LayersGoldenFiles, AreThere) {
  if (cases().empty()) GTEST_SKIP() << "no golden files of layers found";
}

}  // namespace
}  // namespace cinnabar::testing
