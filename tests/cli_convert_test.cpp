#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "models/quicksilver_file.hpp"
#include "tests/child_process.hpp"
#include "tests/golden_cases.hpp"
#include "tests/scratch_folder.hpp"
#include "tests/tensors.hpp"

// cinnabar convert, and cinnabar info on what it wrote.

namespace cinnabar::testing {
namespace {

class CliConvert : public ::testing::Test {
 protected:
  std::string at(const std::string& name) const { return (folder_ / name).string(); }
  static CommandResult run(std::vector<std::string> words) {
    words.insert(words.begin(), kProgram);
    return run_command(words);
  }

  ScratchFolder folder_;
};

TEST_F(CliConvert, ImportsTheOriginalsCheckpoints) {
  const auto checkpoints = golden_files("", ".pth.tar");
  if (checkpoints.empty()) GTEST_SKIP() << "no golden checkpoints";
  for (const auto& checkpoint : checkpoints) {
    const auto result = run({"convert", checkpoint.string(), at("net.safetensors"), "--correction"});
    ASSERT_EQ(result.status, 0) << result.output;
    EXPECT_NE(result.output.find("correction network"), std::string::npos) << result.output;
    const LoadedQuicksilver before = load_quicksilver(checkpoint);
    const LoadedQuicksilver after = load_quicksilver(at("net.safetensors"));
    EXPECT_EQ(after.description.role, QuicksilverRole::correction);
    EXPECT_EQ(after.description.notes, before.description.notes);
    const SafeTensors weights = after.network->state();
    for (const auto& [name, tensor] : before.network->state().tensors) {
      EXPECT_TRUE(same_values(weights.tensors.at(name), tensor)) << name;
    }
  }
  EXPECT_EQ(folder_.count(), 1) << "a temporary file was left";
}

TEST_F(CliConvert, WidensANetwork) {
  save_quicksilver(at("net.safetensors"), Quicksilver({.features = 2}), {});
  ASSERT_EQ(run({"convert", at("net.safetensors"), at("wide.safetensors"), "--features", "6"}).status, 0);
  const auto info = run({"info", at("wide.safetensors")});
  EXPECT_NE(info.output.find("6 features"), std::string::npos) << info.output;
  const auto refused = run({"convert", at("net.safetensors"), at("odd.safetensors"), "--features", "3"});
  EXPECT_EQ(refused.status, 1);
  EXPECT_NE(refused.output.find("multiple"), std::string::npos) << refused.output;
}

TEST_F(CliConvert, ChangesTheStorageAndInfoDescribesIt) {
  QuicksilverDescription description;
  description.momenta.sigma = 0.2;
  description.notes = {{"recipe", "none"}};
  save_quicksilver(at("net.safetensors"), Quicksilver({.features = 2, .dropout = 0.2}), description);
  ASSERT_EQ(run({"convert", at("net.safetensors"), at("half.safetensors"), "--storage", "f16"}).status, 0);
  EXPECT_LT(std::filesystem::file_size(at("half.safetensors")),
            std::filesystem::file_size(at("net.safetensors")) * 3 / 4);
  const auto info = run({"info", at("half.safetensors")});
  EXPECT_EQ(info.status, 0);
  EXPECT_NE(info.output.find("2 features"), std::string::npos) << info.output;
  EXPECT_NE(info.output.find("recipe: none"), std::string::npos) << info.output;
  const auto object = nlohmann::json::parse(run({"info", "--json", at("half.safetensors")}).output);
  EXPECT_EQ(object["dropout"], 0.2);
  EXPECT_EQ(object["momenta"]["sigma"], 0.2);
}

TEST_F(CliConvert, RefusesBadInputInOneLine) {
  const auto expect_refused = [](const CommandResult& result, int status, const std::string& reason) {
    EXPECT_EQ(result.status, status) << result.output;
    EXPECT_TRUE(result.output.starts_with("cinnabar: ")) << result.output;
    EXPECT_EQ(result.output.find('\n'), result.output.size() - 1) << result.output;
    EXPECT_NE(result.output.find(reason), std::string::npos) << result.output;
  };
  save_quicksilver(at("net.safetensors"), Quicksilver({.features = 1}), {});
  write_bytes(at("short.pth"), std::string("PK\x03\x04", 4));
  save_safetensors(at("other.safetensors"), {{{"x", Tensor::zeros({1})}}, {}});
  const std::string out = at("out.safetensors");
  expect_refused(run({"convert", at("absent.pth.tar"), out}), 1, "absent.pth.tar: cannot read");
  expect_refused(run({"convert", at("short.pth"), out}), 1, "short.pth: not a readable PyTorch file");
  expect_refused(run({"convert", at("other.safetensors"), out}), 1, "cinnabar convert");
  expect_refused(run({"convert", at("net.safetensors"), at("out.pth")}), 1, ".safetensors");
  expect_refused(run({"convert", at("net.safetensors"), at("absent/out.safetensors")}), 1, "cannot write");
  expect_refused(run({"convert", at("net.safetensors"), out, "--storage", "f8"}), 2, "f8");
  expect_refused(run({"info", at("other.safetensors")}), 1, "not a network");
  EXPECT_FALSE(std::filesystem::exists(out));
}

}  // namespace
}  // namespace cinnabar::testing
