// Checkpoints of the original program in every container, against the same tensors in safetensors.

#include <gtest/gtest.h>

#include <cstring>
#include <regex>

#include "engine/safetensors.hpp"
#include "models/quicksilver_file.hpp"
#include "tests/golden_cases.hpp"

namespace cinnabar::testing {
namespace {

/// The tensors of qs_fF_*.pth.tar by name: those with ".param." in quicksilver_fF.safetensors, or all of
/// pth_expected_fF.safetensors. Names there may begin with the case's name.
std::map<std::string, Tensor> expected_of(const std::filesystem::path& checkpoint) {
  std::smatch match;
  const std::string name = checkpoint.filename().string();
  if (!std::regex_search(name, match, std::regex("_f([0-9]+)_"))) return {};
  std::map<std::string, Tensor> expected;
  for (const std::string& source : {"pth_expected_f" + match[1].str(), "quicksilver_f" + match[1].str()}) {
    for (const auto& path : golden_files(source)) {
      if (path.stem() != source || !expected.empty()) continue;
      const bool network = source.starts_with("quicksilver");
      for (const auto& [full, tensor] : load_safetensors(path).tensors) {
        const std::size_t block = std::min(full.find("encoder_"), full.find("decoder_"));
        if (block == std::string::npos) continue;
        if (network && full.substr(0, block).find(".param.") == std::string::npos) continue;
        expected[full.substr(block)] = tensor;
      }
    }
  }
  return expected;
}

class TorchFileGolden : public ::testing::TestWithParam<std::filesystem::path> {};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(TorchFileGolden);

TEST_P(TorchFileGolden, LoadsAsTheNetworkWithTheSameBits) {
  const auto expected = expected_of(GetParam());
  ASSERT_FALSE(expected.empty()) << "no expected tensors for " << GetParam();
  const LoadedQuicksilver loaded = load_quicksilver(GetParam());
  const SafeTensors state = loaded.network->state();
  ASSERT_EQ(state.tensors.size(), expected.size());
  for (const auto& [name, tensor] : expected) {
    const auto found = state.tensors.find(name);
    ASSERT_NE(found, state.tensors.end()) << name;
    ASSERT_EQ(found->second.shape(), tensor.shape()) << name;
    EXPECT_EQ(std::memcmp(found->second.raw(), tensor.raw(), tensor.bytes()), 0) << name;
  }
  if (GetParam().filename().string().find("_f4_") == std::string::npos) return;
  const QuicksilverDescription& description = loaded.description;
  EXPECT_EQ(description.network.patch, (Shape{15, 15, 15}));
  EXPECT_EQ(description.momenta.fluid.alpha, 0.01);
  EXPECT_EQ(description.momenta.fluid.gamma, 0.001);
  EXPECT_EQ(description.momenta.time_steps, 10);
  EXPECT_EQ(description.momenta.inverse_iterations, 20);
  EXPECT_EQ(description.notes.at("deformation_params.integMethod"), "RK4");
}

INSTANTIATE_TEST_SUITE_P(Files, TorchFileGolden, ::testing::ValuesIn(golden_files("", ".pth.tar")),
                         [](const auto& file) {
                           std::string name = file.param.filename().string();
                           std::replace_if(
                               name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0; },
                               '_');
                           return name;
                         });

TEST(TorchFileGoldenSet, IsThere) {
  EXPECT_FALSE(golden_files("", ".pth.tar").empty());
}

}  // namespace
}  // namespace cinnabar::testing
