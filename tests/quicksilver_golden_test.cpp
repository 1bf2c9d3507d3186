#include <gtest/gtest.h>

#include <cmath>

#include "autograd/elementwise.hpp"
#include "autograd/losses.hpp"
#include "kernels/conv3d_precision.hpp"
#include "layers/optimizer.hpp"
#include "models/quicksilver.hpp"
#include "tests/tensors.hpp"
#include "tests/torch_cases.hpp"

// The network of Quicksilver against the original one: output, loss, every gradient and three steps of Adam,
// by every backend of convolutions that the device has.

namespace cinnabar::testing {
namespace {

using Tensors = std::map<std::string, Tensor>;

const std::vector<TorchCase>& cases() {
  static const std::vector<TorchCase> all = torch_cases({"quicksilver_f"});
  return all;
}

/// Those tensors whose names begin with a prefix, without it.
SafeTensors with_prefix(const Tensors& tensors, const std::string& prefix) {
  SafeTensors found;
  for (const auto& [name, tensor] : tensors) {
    if (name.starts_with(prefix)) found.tensors[name.substr(prefix.size())] = tensor.to(Device::cpu());
  }
  return found;
}

/// || actual - expected || / || expected - start || over all tensors together: the error of what training
/// changed, or of gradients where the start is 0. Single weights say little, for Adam makes steps of one
/// length even where a gradient is noise.
double error_of_change(const SafeTensors& actual, const SafeTensors& expected, const SafeTensors& start) {
  double error = 0.0, change = 0.0;
  for (const auto& [name, tensor] : expected.tensors) {
    const auto a = actual.tensors.at(name).to_vector<double>();
    const auto e = tensor.to_vector<double>();
    const auto s = start.tensors.at(name).to_vector<double>();
    for (std::size_t i = 0; i < e.size(); ++i) {
      error += (a[i] - e[i]) * (a[i] - e[i]);
      change += (e[i] - s[i]) * (e[i] - s[i]);
    }
  }
  return std::sqrt(error / change);
}

class QuicksilverGolden : public ::testing::TestWithParam<TorchCase> {
 protected:
  void SetUp() override { skip_unless_available(GetParam().device); }

  /// One training as the file records it, with one backend: all of it, or the first loss and its gradients.
  void run(Conv3dBackend backend, bool whole) {
    const nlohmann::json& options = GetParam().options;
    const std::int64_t patch = options.at("patch_size");
    Quicksilver network(
        {.features = options.at("feature_num"), .patch = {patch, patch, patch}, .backend = backend});
    network.to(GetParam().dtype);
    network.load_state(start_);
    network.to(GetParam().device);
    const auto betas = options.at("betas").get<std::vector<double>>();
    Adam adam(network.named_parameters(), {options.at("lr"), betas.at(0), betas.at(1), options.at("eps")});
    const std::int64_t steps = options.at("steps");
    for (std::int64_t step = 0; step <= steps; ++step) {
      const Variable input(tensors_.at("input"), true);
      const Variable output = network(input);
      const Variable loss = l1_loss(output, Variable(tensors_.at("target")), LossReduction::sum);
      const double expected = options.at("losses").at(static_cast<std::size_t>(step));
      // Steps that differ where gradients are noise part the losses too.
      const double least = single() && step > 0 ? 2e-5 : 0.0;
      EXPECT_NEAR(loss.value().item(), expected, expected * std::max(GetParam().tolerance("loss"), least))
          << "step " << step;
      if (step == 0) expect_close("output", output.value());
      if (step == steps) {
        EXPECT_LE(relative_error(output.value(), tensors_.at("output_after3")),
                  single() ? std::max(change_tolerance(), 3e-2) : 1e-6);
        break;
      }
      adam.clear_gradients();
      loss.backward();
      if (step == 0) check_gradients(network, input.grad());
      if (!whole) return;
      adam.step();
    }
    EXPECT_LE(error_of_change(network.state(), with_prefix(tensors_, "after3."), start_), change_tolerance());
  }

  void expect_close(const std::string& name, const Tensor& actual) {
    EXPECT_LE(relative_error(actual, tensors_.at(name)), GetParam().tolerance(name)) << name;
  }

  /// In f32 a PReLU's argument within 1e-6 of zero may take the other side under another order of summation.
  /// All gradients in front of it then miss or gain one term: single numbers by percents, all together
  /// hardly.
  void check_gradients(const Quicksilver& network, const Tensor& grad_input) {
    const auto tolerance = [this](const char* name, double of_one) {
      return std::max(GetParam().tolerance(name), single() ? of_one : 0.0);
    };
    const double each = tolerance("grad_params", 0.2);
    SafeTensors actual, expected, zero;
    EXPECT_LE(relative_error(grad_input, tensors_.at("grad_input")), tolerance("grad_input", 5e-2));
    const auto without = GetParam().options.at("params_without_grad").get<std::vector<std::string>>();
    for (const auto& [name, parameter] : network.named_parameters()) {
      if (std::find(without.begin(), without.end(), name) != without.end()) {
        EXPECT_FALSE(parameter.grad().defined()) << name;
        continue;
      }
      ASSERT_TRUE(parameter.grad().defined()) << name;
      actual.tensors[name] = parameter.grad().to(Device::cpu());
      expected.tensors[name] = tensors_.at("grad." + name);
      zero.tensors[name] = Tensor::zeros_like(expected.tensors[name]);
      EXPECT_LE(relative_error(actual.tensors[name], expected.tensors[name]), each) << name;
    }
    EXPECT_LE(error_of_change(actual, expected, zero), single() ? 1e-3 : 1e-6);
  }

  bool single() const { return GetParam().dtype == DType::f32; }

  /// Ten times what PyTorch itself loses in f32, and room for such a gradient; in f64 the rounding of the
  /// stored weights.
  double change_tolerance() const {
    const nlohmann::json& stated = GetParam().options.at("torch_f32_adam_delta");
    return single() ? std::max(10 * stated.at("delta_rel_L2").get<double>(), 1e-2) : 1e-4;
  }

  Tensors tensors_;
  SafeTensors start_;
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(QuicksilverGolden);

TEST_P(QuicksilverGolden, TrainsAsTheOriginal) {
  const TorchCase& golden = GetParam();
  ASSERT_FALSE(golden.options.is_null()) << golden.file << ": " << golden.name;
  tensors_ = golden.read();
  start_ = with_prefix(tensors_, "param.");
  using enum Conv3dBackend;
  for (const Conv3dBackend backend : {by_rule, reference, gemm, fft, direct, cudnn}) {
    // Plain loops take minutes.
    if (backend == reference && (single() || golden.options.at("feature_num") > 4)) continue;
    if (backend == by_rule && !golden.device.is_cpu()) continue;  // that is `direct` there
    if (!conv3d_has_backend(golden.device, backend)) continue;
    SCOPED_TRACE(::testing::Message() << "backend " << static_cast<int>(backend));
    // The emulator takes minutes for a training: one backend is enough for Adam.
    run(backend, backend == direct || !(golden.device.is_cuda() && cuda_is_emulated()));
  }
}

struct ScaledPass {
  Tensor output;
  SafeTensors gradients;  ///< by the names of their parameters, without the scale, on the CPU
};

/// One pass there and back of the loss times the first scale of 1024, 512, ... 1 at which all gradients are
/// finite: unscaled ones may vanish in fp16, large ones overflow.
ScaledPass scaled_pass(Quicksilver& network, const Tensor& input, const Tensor& target) {
  for (double factor = 1024.0; factor >= 1.0; factor /= 2) {
    network.clear_gradients();
    const Variable output = network(Variable(input));
    scale(l1_loss(output, Variable(target), LossReduction::sum), factor).backward();
    SafeTensors found;
    bool finite = true;
    for (const auto& [name, parameter] : network.named_parameters()) {
      if (!parameter.grad().defined()) continue;
      Tensor& gradient = found.tensors[name];
      gradient = scale(Variable(parameter.grad()), 1.0 / factor).value().to(Device::cpu());
      const auto values = gradient.to_vector<double>();
      finite = finite && std::all_of(values.begin(), values.end(), [](double x) { return std::isfinite(x); });
    }
    if (finite) return {output.value(), found};
  }
  ADD_FAILURE() << "gradients are not finite at a loss scale of 1";
  return {};
}

/// What rounding the operands of its convolutions costs the whole network, sixteen in a row: tf32 and fp16
/// have 3 bits more than bf16. Gradients suffer more than the output, for some rectifiers flip; small
/// networks and patches most, for they have few to average over.
TEST_P(QuicksilverGolden, ComputesTheSameInEveryPrecisionButForItsRounding) {
  const TorchCase& golden = GetParam();
  ASSERT_FALSE(golden.options.is_null()) << golden.file << ": " << golden.name;
  if (!single()) GTEST_SKIP() << "operands of f32 are rounded";
  tensors_ = golden.read();
  const std::int64_t features = golden.options.at("feature_num");
  const std::int64_t patch = golden.options.at("patch_size");
  const bool small = features < 4 || patch < 15;
  double fine_error = 0.0;  // of the output in tf32 and fp16
  for (const Conv3dPrecision precision :
       {Conv3dPrecision::tf32, Conv3dPrecision::fp16, Conv3dPrecision::bf16}) {
    // The emulator takes a minute for each.
    if (golden.device.is_cuda() && cuda_is_emulated() && precision != Conv3dPrecision::fp16) continue;
    SCOPED_TRACE(name_of(precision));
    Quicksilver network({.features = features, .patch = {patch, patch, patch}, .precision = precision});
    network.load_state(with_prefix(tensors_, "param."));
    network.to(golden.device);
    const auto [output, actual] = scaled_pass(network, tensors_.at("input"), tensors_.at("target"));
    ASSERT_TRUE(output.defined());
    SafeTensors expected, zero;
    for (const auto& [name, gradient] : actual.tensors) {
      expected.tensors[name] = tensors_.at("grad." + name);
      zero.tensors[name] = Tensor::zeros_like(gradient);
    }
    const SafeTensors found{{{"output", output}}, {}}, wanted{{{"output", tensors_.at("output")}}, {}},
        nothing{{{"output", Tensor::zeros(output.shape())}}, {}};
    const bool coarse = precision == Conv3dPrecision::bf16;
    const double error = error_of_change(found, wanted, nothing);
    EXPECT_LE(error, (coarse ? 2e-2 : 2.5e-3) * (small ? 1.8 : 1.0));
    EXPECT_GT(error, coarse ? 4 * fine_error : 1e-4) << "less was rounded";
    if (!coarse) fine_error = error;
    EXPECT_LE(error_of_change(actual, expected, zero), (coarse ? 8.5e-2 : 2.5e-2) * (small ? 1.8 : 1.0));
  }
}

INSTANTIATE_TEST_SUITE_P(Files, QuicksilverGolden, ::testing::ValuesIn(cases()), name_of_torch_case);

TEST(QuicksilverGoldenFiles, AreThere) {
  if (cases().empty()) GTEST_SKIP() << "no golden files of the network found";
}

}  // namespace
}  // namespace cinnabar::testing
