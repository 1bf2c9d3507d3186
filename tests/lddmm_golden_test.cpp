// Shooting, reference gradient and fixed-step matching against PyCA's own results: every file whose metadata
// `case` starts with B, C or D, on every device. Tolerances are those the files' makers state for float32.

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "engine/safetensors.hpp"
#include "kernels/warp.hpp"
#include "models/lddmm_matching.hpp"
#include "tests/devices.hpp"
#include "tests/golden_cases.hpp"

namespace cinnabar {
namespace {

using Metadata = std::map<std::string, std::string>;

double number(const Metadata& metadata, const std::string& key) {
  return std::stod(metadata.at(key));
}

/// One golden file with what every case needs; tensors come as float32 [1, C, D, H, W] unless raised.
class GoldenFile {
 public:
  GoldenFile(const std::filesystem::path& path, Device device, DType dtype)
      : file_(path), device_(device), dtype_(dtype) {}

  const Metadata& metadata() const { return file_.metadata(); }
  bool contains(const std::string& name) const { return file_.contains(name); }
  std::vector<std::string> names() const { return file_.names(); }

  Tensor plain(const std::string& name) const { return file_.read(name).to(DType::f64); }
  Tensor input(const std::string& name) const {
    const Tensor values = file_.read(name);
    const Shape& s = values.shape();
    const Shape batched = s.rank() == 3 ? Shape{1, 1, s[0], s[1], s[2]} : Shape{1, s[0], s[1], s[2], s[3]};
    return values.reshape(batched).to(dtype_).to(device_);
  }

  ShootingOptions shooting(int inverse_iterations) const {
    ShootingOptions options;
    options.fluid = {number(metadata(), "alpha"), number(metadata(), "beta"), number(metadata(), "gamma")};
    options.time_steps = static_cast<int>(number(metadata(), "nTimeSteps"));
    options.inverse_iterations = inverse_iterations;
    options.padding = FftPadding::exact;
    return options;
  }

  MatchingOptions matching() const {
    MatchingOptions options;
    options.shooting = shooting(static_cast<int>(number(metadata(), "NIterForInverse")));
    options.sigma = number(metadata(), "sigma");
    return options;
  }

 private:
  SafeTensorsFile file_;
  Device device_;
  DType dtype_;
};

/// Displacements [1, 3, D, H, W] as an absolute map, like the files hold it.
std::vector<double> absolute_map(const Tensor& displacement) {
  std::vector<double> map = displacement.to_vector<double>();
  const std::int64_t nz = displacement.shape(2), ny = displacement.shape(3), nx = displacement.shape(4);
  std::size_t at = 0;
  for (int component = 0; component < 3; ++component) {
    for (std::int64_t z = 0; z < nz; ++z) {
      for (std::int64_t y = 0; y < ny; ++y) {
        for (std::int64_t x = 0; x < nx; ++x, ++at) {
          map[at] += static_cast<double>(component == 0 ? x : component == 1 ? y : z);
        }
      }
    }
  }
  return map;
}

/// ||out - ref|| / ||ref||; NaN compares as infinitely far.
double relative_rms(const std::vector<double>& out, const std::vector<double>& ref) {
  if (out.size() != ref.size()) return INFINITY;
  double error = 0.0, norm = 0.0;
  for (std::size_t i = 0; i < ref.size(); ++i) {
    error += (out[i] - ref[i]) * (out[i] - ref[i]);
    norm += ref[i] * ref[i];
  }
  const double result = std::sqrt(error / norm);
  return std::isnan(result) ? INFINITY : result;
}

double largest_difference(const std::vector<double>& out, const std::vector<double>& ref) {
  if (out.size() != ref.size()) return INFINITY;
  double largest = 0.0;
  for (std::size_t i = 0; i < ref.size(); ++i) {
    const double error = std::abs(out[i] - ref[i]);
    if (!(error <= largest)) largest = std::isnan(error) ? INFINITY : error;
  }
  return largest;
}

void expect_map(const GoldenFile& file, const Tensor& displacement, const std::string& name) {
  if (!file.contains(name)) return;
  const std::vector<double> ref = file.plain(name).to_vector<double>();
  EXPECT_LT(largest_difference(absolute_map(displacement), ref), 1e-4) << name;
}

void expect_relative(const GoldenFile& file, const Tensor& values, const std::string& name,
                     double tolerance) {
  if (!file.contains(name)) return;
  EXPECT_LT(relative_rms(values.to_vector<double>(), file.plain(name).to_vector<double>()), tolerance)
      << name;
}

Tensor warped_image(const Tensor& image, const Tensor& displacement) {
  Tensor result = Tensor::empty_like(image);
  warp_on(image.device()).forward(image, displacement, Boundary::border, result);
  return result;
}

void expect_warped(const GoldenFile& file, const Flow& flow, const std::string& name) {
  const Tensor warped = warped_image(file.input("I0"), flow.psi.value());
  EXPECT_LT(largest_difference(warped.to_vector<double>(), file.plain(name).to_vector<double>()), 1e-4)
      << name;
}

/// B: the forward shooting, for every iteration count named by a tensor g_end_N*.
void check_shooting(const GoldenFile& file) {
  const std::string prefix = "g_end_N";
  int runs = 0;
  for (const std::string& name : file.names()) {
    if (!name.starts_with(prefix)) continue;
    ++runs;
    const std::string count = name.substr(prefix.size());
    const auto states = shoot_trajectory(file.input("m0"), file.shooting(std::stoi(count)));
    const auto half = static_cast<std::size_t>(number(file.metadata(), "half_step_index"));
    expect_map(file, states.at(half).phi.value(), "g_half_N" + count);
    expect_map(file, states.at(half).psi.value(), "ginv_half_N" + count);
    expect_map(file, states.back().phi.value(), "g_end_N" + count);
    expect_map(file, states.back().psi.value(), "ginv_end_N" + count);
    expect_warped(file, states.back(), "I0_warped_N" + count);
  }
  EXPECT_GT(runs, 0) << "no g_end_N* tensor";
}

/// C: one evaluation of the reference's gradient.
void check_gradient(const GoldenFile& file) {
  const ImagePair pair{file.input("I0"), file.input("I1")};
  const ReferenceGradient found = reference_gradient(pair, file.input("m0"), file.matching());
  expect_relative(file, found.gradient, "grad", 1e-5);
  expect_relative(file, found.adjoint_momentum, "madj", 1e-5);
  expect_relative(file, found.adjoint_image, "Iadj", 3e-5);
  expect_relative(file, found.residual, "residual_over_sigma2", 3e-5);
  expect_map(file, found.flow.psi.value(), "ginv_end");
  const std::vector<double> energy = file.plain("energy").to_vector<double>();
  const auto voxels = static_cast<double>(pair.fixed.numel());
  EXPECT_NEAR(found.energy.regularity / voxels / energy[2], 1.0, 1e-4);
  EXPECT_NEAR(found.energy.data / voxels / energy[3], 1.0, 1e-4);
}

/// D: a whole fixed-step run from m0 = 0, energy by energy.
void check_matching(const GoldenFile& file) {
  const ImagePair pair{file.input("I0"), file.input("I1")};
  const MatchingOptions options = file.matching();
  const Tensor start = Tensor::zeros(pair.fixed.shape().with(1, 3), pair.fixed.dtype(), pair.fixed.device());
  const DescentResult found = descend_fixed_step(pair, start, options, number(file.metadata(), "stepSize"),
                                                 static_cast<int>(number(file.metadata(), "Niter")));
  const std::vector<double> energies = file.plain("energies").to_vector<double>();
  const auto voxels = static_cast<double>(pair.fixed.numel());
  ASSERT_EQ(energies.size(), 4 * found.energies.size());
  for (std::size_t i = 0; i < found.energies.size(); ++i) {
    const double regularity = energies[4 * i + 2], data = energies[4 * i + 3];
    EXPECT_NEAR(found.energies[i].regularity / voxels, regularity, 1e-4 * regularity) << "iteration " << i;
    EXPECT_NEAR(found.energies[i].data / voxels, data, 1e-4 * data) << "iteration " << i;
  }
  expect_relative(file, found.momentum, "m0_final", 1e-4);
  const Flow flow = shoot_trajectory(found.momentum, options.shooting).back();
  expect_map(file, flow.phi.value(), "phi_final");
  expect_map(file, flow.psi.value(), "phiinv_final");
  expect_warped(file, flow, "I0_warped_final");
}

class LddmmGolden : public ::testing::Test {
 public:
  LddmmGolden(std::filesystem::path path, char letter, Device device, DType dtype)
      : path_(std::move(path)), letter_(letter), device_(device), dtype_(dtype) {}

  void SetUp() override { testing::skip_unless_available(device_); }
  void TestBody() override {
    const GoldenFile file(path_, device_, dtype_);
    switch (letter_) {
      case 'B':
        return check_shooting(file);
      case 'C':
        return check_gradient(file);
      case 'D':
        return check_matching(file);
      default:
        FAIL() << "unknown case in " << path_;
    }
  }

 private:
  std::filesystem::path path_;
  char letter_;
  Device device_;
  DType dtype_;
};

/// Builds on the emulator test its device only, and leave out the fixed-step runs, which take minutes there,
/// unless CINNABAR_EMULATE_ALL is set.
bool left_out(char letter, Device device) {
  if (!cuda_is_emulated() || std::getenv("CINNABAR_EMULATE_ALL") != nullptr) return false;
  return device.is_cpu() || letter == 'D';
}

void register_cases() {
  int cases = 0;
  for (const auto& path : testing::golden_files("")) {
    const char letter = testing::epdiff_case(path);
    if (letter != 'B' && letter != 'C' && letter != 'D') continue;
    const int index = cases++;
    const auto add = [&](Device device, DType dtype) {
      const std::string name = testing::as_test_name(detail::concat(
          index, "_", path.stem().string(), "_", device.is_cpu() ? "cpu" : "cuda", "_", dtype));
      ::testing::RegisterTest(
          "LddmmGolden", name.c_str(), nullptr, nullptr, __FILE__, __LINE__,
          [=]() -> ::testing::Test* { return new LddmmGolden(path, letter, device, dtype); });
    };
    if (!left_out(letter, Device::cpu())) {
      add(Device::cpu(), DType::f32);
      add(Device::cpu(), DType::f64);
    }
    if (!left_out(letter, Device::cuda())) add(Device::cuda(), DType::f32);
  }
  if (cases == 0) {
    class NoFiles : public ::testing::Test {
      void TestBody() override { GTEST_SKIP() << "no golden files of shooting found"; }
    };
    ::testing::RegisterTest("LddmmGolden", "no_files", nullptr, nullptr, __FILE__, __LINE__,
                            []() -> ::testing::Test* { return new NoFiles; });
  }
}

}  // namespace
}  // namespace cinnabar

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  cinnabar::register_cases();
  return RUN_ALL_TESTS();
}
