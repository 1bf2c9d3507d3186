#include <gtest/gtest.h>

#include <memory>

#include "layers/optimizer.hpp"
#include "tests/tensors.hpp"
#include "tests/torch_cases.hpp"

// Trajectories of a parameter under PyTorch's optimisers, step by step, and their running averages at the
// end.

namespace cinnabar::testing {
namespace {

const std::vector<TorchCase>& cases() {
  static const std::vector<TorchCase> all = torch_cases({"optim"});
  return all;
}

std::unique_ptr<Optimizer> make_optimizer(const nlohmann::json& options,
                                          const std::vector<NamedVariable>& parameters) {
  const std::string op = options.at("op");
  if (op == "sgd") {
    return std::make_unique<Sgd>(
        parameters,
        SgdOptions{options.at("lr"), options.value("momentum", 0.0), options.value("nesterov", false),
                   options.value("weight_decay", 0.0), options.value("dampening", 0.0)});
  }
  CINNABAR_CHECK(op == "adam" || op == "adamw", "golden", "unknown optimiser ", op);
  const auto betas = options.at("betas").get<std::vector<double>>();
  return std::make_unique<Adam>(parameters, AdamOptions{options.at("lr"), betas.at(0), betas.at(1),
                                                        options.at("eps"), options.value("weight_decay", 0.0),
                                                        op == "adamw", options.value("amsgrad", false)});
}

class OptimGolden : public ::testing::TestWithParam<TorchCase> {
 protected:
  void SetUp() override { skip_unless_available(GetParam().device); }
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(OptimGolden);

TEST_P(OptimGolden, TrajectoryAgrees) {
  const TorchCase& golden = GetParam();
  ASSERT_FALSE(golden.options.is_null()) << golden.file << ": " << golden.name;
  const auto tensors = golden.read();
  // Gradients and positions in float64 where the file has both.
  const auto precise = [&](const std::string& name) {
    const auto found = tensors.find(name + "64");
    return found != tensors.end() && golden.dtype == DType::f64 ? found->second : tensors.at(name);
  };
  const Variable parameter(tensors.at("p0").clone(), true);
  const auto optimizer = make_optimizer(golden.options, std::vector<NamedVariable>{{"p", parameter}});
  const Tensor gradients = precise("grads");
  const Tensor expected = precise("traj");
  const Shape shape = parameter.shape();
  ASSERT_GT(expected.shape(0), 0);
  for (std::int64_t step = 0; step < expected.shape(0); ++step) {
    optimizer->clear_gradients();
    parameter.backward(gradients.rows(step, 1).reshape(shape));
    optimizer->step();
    ASSERT_LE(relative_error(parameter.value(), expected.rows(step, 1).reshape(shape)),
              golden.dtype == DType::f64 ? 1e-12 : golden.tolerance("traj"))
        << "step " << step;
  }
  const SafeTensors state = optimizer->state();
  for (const auto& [name, tensor] : tensors) {
    if (name.rfind("final_", 0) != 0) continue;
    const auto found = state.tensors.find(name.substr(6) + ".p");
    ASSERT_NE(found, state.tensors.end()) << name;
    EXPECT_LE(relative_error(found->second, tensor), golden.tolerance(name)) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Files, OptimGolden, ::testing::ValuesIn(cases()), name_of_torch_case);

TEST(OptimGoldenFiles, AreThere) {
  if (cases().empty()) GTEST_SKIP() << "no golden files of optimisers found";
}

}  // namespace
}  // namespace cinnabar::testing
