// Checkpoints of the original program in every container, against the same tensors in safetensors.

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <regex>

#include "engine/safetensors.hpp"
#include "models/quicksilver_file.hpp"
#include "tests/golden_cases.hpp"

namespace cinnabar::testing {
namespace {

/// What a checkpoint must hold, and the metadata of the file that says so.
struct Expected {
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;
};

/// For NAME_fF.pth.tar or NAME_fF_*.pth.tar the tensors with ".param." in quicksilver_fF.safetensors, or all
/// of pth_expected_fF.safetensors, in the same folder or else in any; tensors' names there may begin with the
/// case's name. Empty where there is none.
Expected expected_of(const std::filesystem::path& checkpoint) {
  std::smatch match;
  const std::string name = checkpoint.filename().string();
  if (!std::regex_search(name, match, std::regex("_f([0-9]+)[_.]"))) return {};
  for (const bool same_folder : {true, false}) {
    for (const std::string& source : {"pth_expected_f" + match[1].str(), "quicksilver_f" + match[1].str()}) {
      for (const auto& path : golden_files(source)) {
        if (path.stem() != source || (same_folder && path.parent_path() != checkpoint.parent_path()))
          continue;
        const bool network = source.starts_with("quicksilver");
        const SafeTensors file = load_safetensors(path);
        Expected expected{{}, file.metadata};
        for (const auto& [full, tensor] : file.tensors) {
          const std::size_t block = std::min(full.find("encoder_"), full.find("decoder_"));
          if (block == std::string::npos) continue;
          if (network && full.substr(0, block).find(".param.") == std::string::npos) continue;
          expected.tensors[full.substr(block)] = tensor;
        }
        if (!expected.tensors.empty()) return expected;
      }
    }
  }
  return {};
}

/// Whether a checkpoint with these tensors is one of the public ones, which are known to the last constant:
/// their weights are those of the public file of four features.
bool is_public(const Expected& expected) {
  const auto has = [&](const char* key, const char* value) {
    const auto found = expected.metadata.find(key);
    return found != expected.metadata.end() && found->second == value;
  };
  return has("family", "quicksilver_f4") && has("seed", "4004");
}

void expect_public(const QuicksilverDescription& description) {
  EXPECT_EQ(description.network.patch, (Shape{15, 15, 15}));
  EXPECT_EQ(description.momenta.fluid.alpha, 0.01);
  EXPECT_EQ(description.momenta.fluid.gamma, 0.001);
  EXPECT_EQ(description.momenta.time_steps, 10);
  EXPECT_EQ(description.momenta.inverse_iterations, 20);
  EXPECT_EQ(description.notes.at("deformation_params.integMethod"), "RK4");
}

void expect_sensible(const QuicksilverDescription& description) {
  for (const int axis : {0, 1, 2}) EXPECT_GT(description.network.patch[axis], 0) << "axis " << axis;
  const FluidOperator& fluid = description.momenta.fluid;
  for (const double constant : {fluid.alpha, fluid.gamma}) {
    EXPECT_TRUE(std::isfinite(constant) && constant > 0) << constant;
  }
  EXPECT_GT(description.momenta.time_steps, 0);
  EXPECT_GT(description.momenta.inverse_iterations, 0);
}

class TorchFileGolden : public ::testing::TestWithParam<std::filesystem::path> {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(TorchFileGolden);

TEST_P(TorchFileGolden, LoadsAsTheNetworkWithTheSameBits) {
  const auto expected = expected_of(GetParam());
  if (expected.tensors.empty()) GTEST_SKIP() << "no reference tensors for " << GetParam();
  const LoadedQuicksilver loaded = load_quicksilver(GetParam());
  const SafeTensors state = loaded.network->state();
  ASSERT_EQ(state.tensors.size(), expected.tensors.size());
  for (const auto& [name, tensor] : expected.tensors) {
    const auto found = state.tensors.find(name);
    ASSERT_NE(found, state.tensors.end()) << name;
    ASSERT_EQ(found->second.shape(), tensor.shape()) << name;
    EXPECT_EQ(std::memcmp(found->second.raw(), tensor.raw(), tensor.bytes()), 0) << name;
  }
  expect_sensible(loaded.description);
  if (is_public(expected)) expect_public(loaded.description);
}

INSTANTIATE_TEST_SUITE_P(Files, TorchFileGolden, ::testing::ValuesIn(golden_files("", ".pth.tar")),
                         [](const auto& file) {
                           return std::to_string(file.index) + '_' +
                                  as_test_name(file.param.filename().string());
                         });

TEST(TorchFileGoldenSet, IsThere) {
  if (golden_files("", ".pth.tar").empty()) GTEST_SKIP() << "no checkpoints (.pth.tar) found";
}

}  // namespace
}  // namespace cinnabar::testing
