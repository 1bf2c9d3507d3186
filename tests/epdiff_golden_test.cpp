// Operators of kernels/{warp,epdiff,update_inverse,green_operator,reduce}.hpp against files written by the
// reference implementation (float32), on each device and dtype.

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "engine/safetensors.hpp"
#include "kernels/epdiff.hpp"
#include "kernels/green_operator.hpp"
#include "kernels/reduce.hpp"
#include "kernels/update_inverse.hpp"
#include "kernels/warp.hpp"
#include "tests/devices.hpp"
#include "tests/golden_cases.hpp"
#include "tests/tensors.hpp"

namespace cinnabar {
namespace {

struct Target {
  Device device;
  DType dtype;
};

/// One file's tensors on a target: images as [1, 1, D, H, W], fields as [1, 3, D, H, W].
class OperatorCase {
 public:
  OperatorCase(const SafeTensors& file, Target target) : file_(file), target_(target) {
    const auto number = [&](const char* name) { return std::stod(file.metadata.at(name)); };
    // The reference holds its parameters in float32.
    fluid_ = {static_cast<float>(number("alpha")), static_cast<float>(number("beta")),
              static_cast<float>(number("gamma"))};
  }

  Tensor load(const std::string& name) const {
    const Tensor& stored = file_.tensors.at(name);
    const Tensor batched = stored.rank() == 3
                               ? stored.reshape({1, 1, stored.shape(0), stored.shape(1), stored.shape(2)})
                               : stored.reshape({1, 3, stored.shape(1), stored.shape(2), stored.shape(3)});
    return batched.to(target_.dtype).to(target_.device);
  }

  /// The displacement of a stored absolute map, subtracted in the target's precision.
  Tensor load_map(const std::string& name) const { return shifted(load(name), -1.0); }

  /// Adds the identity map, `sign` times.
  static Tensor shifted(const Tensor& field, double sign) {
    std::vector<double> values = field.to_vector<double>();
    const std::int64_t d = field.shape(2), h = field.shape(3), w = field.shape(4);
    for (std::int64_t i = 0; i < d * h * w; ++i) {
      const std::int64_t index[3] = {i % w, i / w % h, i / w / h};
      for (std::int64_t axis = 0; axis < 3; ++axis) {
        values[static_cast<std::size_t>(axis * d * h * w + i)] += sign * static_cast<double>(index[axis]);
      }
    }
    return Tensor::from(values, field.shape()).to(field.dtype()).to(field.device());
  }

  /// The result of the operator that a tensor's name states; undefined for names that are no operator's.
  Tensor compute(const std::string& name) const;

  /// The first three entries of `reductions`: the sum of I^2, of m v and of m^2.
  std::vector<double> reductions() const;

 private:
  const SafeTensors& file_;
  Target target_;
  FluidOperator fluid_;
};

Tensor OperatorCase::compute(const std::string& name) const {
  const auto& warp = warp_on(target_.device);
  const auto& epdiff = epdiff_on(target_.device);
  const auto& green = green_operator_on(target_.device);
  Tensor field = Tensor::empty_like(load("m"));
  if (name == "K_m") {
    green.smooth(load("m"), fluid_, FftPadding::exact, field);
  } else if (name == "L_m") {
    green.sharpen(load("m"), fluid_, FftPadding::exact, field);
  } else if (name == "CoAd_h_m") {
    epdiff.coad(load_map("h"), load("m"), field);
  } else if (name == "CoAdInf_v_m") {
    epdiff.coad_inf(load("v"), load("m"), field);
  } else if (name == "JacobianXY_v_m") {
    epdiff.jacobian_times_vector(load("v"), load("m"), field);
  } else if (name == "ApplyH_v_h_partialzero") {
    warp.forward(load("v"), load_map("h"), Boundary::zeros, field);
  } else if (name == "ComposeHH_ginv0_h_partialid") {
    warp.compose(load_map("ginv0"), load_map("h"), field);
    return shifted(field, 1.0);
  } else if (name.rfind("UpdateInverse_N", 0) == 0) {
    update_inverse_on(target_.device)
        .forward(load_map("ginv0"), load("w"), std::stoi(name.substr(15)), field);
    return shifted(field, 1.0);
  } else if (name == "Gradient_I") {
    epdiff.image_gradient(load("I"), field);
  } else {
    Tensor image = Tensor::empty_like(load("I"));
    if (name == "ApplyH_I_h_clamp") {
      warp.forward(load("I"), load_map("h"), Boundary::border, image);
    } else if (name == "Splat_h_I") {
      warp.backward_input(load("I"), load_map("h"), Boundary::zeros, image);
    } else {
      return {};
    }
    return image;
  }
  return field;
}

std::vector<double> OperatorCase::reductions() const {
  const auto reduced = [this](Reduction op, const Tensor& x, const Tensor& reference) {
    Tensor total = testing::poisoned({1, 1, 1, 1, 1}, target_.dtype, target_.device);
    reduce_on(target_.device).forward(op, x, reference, 1.0, total);
    return total.item();
  };
  return {reduced(Reduction::sum_squares, load("I"), {}),
          reduced(Reduction::sum_products, load("m"), load("v")),
          reduced(Reduction::sum_squares, load("m"), {})};
}

double relative_rms(const Tensor& actual, const Tensor& expected) {
  const std::vector<double> a = actual.to_vector<double>();
  const std::vector<double> e = expected.to_vector<double>();
  if (a.size() != e.size()) return INFINITY;
  double difference = 0.0;
  double size = 0.0;
  for (std::size_t i = 0; i < e.size(); ++i) {
    difference += (a[i] - e[i]) * (a[i] - e[i]);
    size += e[i] * e[i];
  }
  return size > 0.0 ? std::sqrt(difference / size) : std::sqrt(difference);
}

struct EpdiffCase {
  std::filesystem::path path;
  Target target;
};

void PrintTo(const EpdiffCase& golden, std::ostream* out) {
  *out << golden.path.string() << ' ' << golden.target.device << ' ' << golden.target.dtype;
}

const std::vector<EpdiffCase>& cases() {
  static const std::vector<EpdiffCase> all = [] {
    std::vector<EpdiffCase> found;
    for (const auto& path : testing::golden_files("")) {
      if (testing::epdiff_case(path) != 'A') continue;
      found.push_back({path, {Device::cpu(), DType::f32}});
      found.push_back({path, {Device::cpu(), DType::f64}});
      found.push_back({path, {Device::cuda(), DType::f32}});
    }
    return found;
  }();
  return all;
}

class EpdiffGolden : public ::testing::TestWithParam<EpdiffCase> {
 protected:
  void SetUp() override { testing::skip_unless_available(GetParam().target.device); }
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(EpdiffGolden);

TEST_P(EpdiffGolden, EveryOperatorMatchesTheReference) {
  const SafeTensors file = load_safetensors(GetParam().path);
  const OperatorCase operators(file, GetParam().target);
  int checked = 0;
  for (const auto& [name, expected] : file.tensors) {
    if (name.find('_') == std::string::npos) continue;
    const Tensor actual = operators.compute(name);
    if (!actual.defined()) continue;
    ++checked;
    EXPECT_LT(relative_rms(actual, expected), name == "L_m" ? 3e-6 : 1e-6) << name;
  }
  EXPECT_GE(checked, 12) << "too few known operators";
  const std::vector<double> sums = operators.reductions();
  const std::vector<double> stored = file.tensors.at("reductions").to_vector<double>();
  ASSERT_EQ(stored.size(), 4u);
  for (std::size_t i = 0; i < 3; ++i) {
    // The reference adds one by one in float32, which leaves it up to 1.8e-6 from the exact sums.
    EXPECT_NEAR(sums[i], stored[i], 4e-6 * std::abs(stored[i])) << "reduction " << i;
  }
}

std::string name_of_case(const ::testing::TestParamInfo<EpdiffCase>& info) {
  const auto& [path, target] = info.param;
  return testing::as_test_name(detail::concat(info.index, "_", path.stem().string(), "_",
                                              target.device.is_cpu() ? "cpu" : "cuda", "_", target.dtype));
}

INSTANTIATE_TEST_SUITE_P(Files, EpdiffGolden, ::testing::ValuesIn(cases()), name_of_case);

TEST(EpdiffGoldenFiles, AreThere) {
  if (cases().empty()) GTEST_SKIP() << "no operator files (case A) found";
}

}  // namespace
}  // namespace cinnabar
