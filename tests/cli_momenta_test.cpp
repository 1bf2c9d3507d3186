// The momenta command on small synthetic scans: what it writes, and that nothing is lost or done twice.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/safetensors.hpp"
#include "registration/momenta.hpp"
#include "registration/nifti.hpp"
#include "tests/child_process.hpp"
#include "tests/scratch_folder.hpp"
#include "tests/synthetic_head.hpp"

namespace cinnabar::registration {
namespace {

using cinnabar::testing::CommandResult;
using cinnabar::testing::head;
using cinnabar::testing::kProgram;
using cinnabar::testing::read_bytes;
using cinnabar::testing::run_shell;
using cinnabar::testing::ScratchFolder;
using cinnabar::testing::shell_quote;
using cinnabar::testing::write_bytes;

class Momenta : public ::testing::Test {
 protected:
  void SetUp() override {
    const Geometry grid = axis_aligned_grid({28, 32, 26}, {3, 3, 3}, {-42, -48, -39});
    write_image(folder_ / "a.nii.gz", head(grid, 0, 1.0));
    write_image(folder_ / "b.nii.gz", head(grid, 5, 1.2));
    write_bytes(folder_ / "pairs.csv", "moving,fixed\na.nii.gz,b.nii.gz\nb.nii.gz,a.nii.gz\n");
  }

  std::string command(const std::string& options = {}, const std::string& out = "momenta") const {
    return shell_quote(kProgram) + " momenta --pairs " + shell_quote((folder_ / "pairs.csv").string()) +
           " --out " + shell_quote((folder_ / out).string()) +
           " --resolution 10 --iterations 5x3 --device cpu --threads 1 " + options + " 2>&1";
  }
  std::string made(const std::string& name, const std::string& out = "momenta") const {
    return read_bytes(folder_ / out / name);
  }

  ScratchFolder folder_;
};

TEST_F(Momenta, WritesStacksAndRecords) {
  const CommandResult result = run_shell(command());
  ASSERT_EQ(result.status, 0) << result.output;
  const SafeTensors stack = load_safetensors(folder_ / "momenta" / "a_to_b.safetensors");
  ASSERT_EQ(stack.tensors.size(), 3u);
  const Shape images = stack.tensors.at("moving").shape();
  EXPECT_EQ(stack.tensors.at("target").shape(), images);
  EXPECT_EQ(stack.tensors.at("momentum").shape(), images.with(1, 3));
  const auto record = nlohmann::json::parse(made("a_to_b.json"));
  EXPECT_GT(record["ncc"].get<double>(), record["ncc_affine"].get<double>());
  const auto settings = nlohmann::json::parse(made("momenta.json"));
  EXPECT_EQ(settings["model"]["head_voxels"].get<double>(), 1400.0);
  // The fixed head has that many voxels on its grid, whatever its size in mm.
  const Tensor& fixed = stack.tensors.at("target");
  const auto inside = std::count_if(fixed.data<float>(), fixed.data<float>() + fixed.numel(),
                                    [](float v) { return v > 0.02f; });
  EXPECT_NEAR(static_cast<double>(inside), 1400.0, 210.0);
}

TEST_F(Momenta, TheSimilarityIsPartOfTheModel) {
  ASSERT_EQ(run_shell(command("--similarity lncc --lncc-radius 2 --shard 1/2")).status, 0);
  const auto model = nlohmann::json::parse(made("momenta.json"))["model"];
  EXPECT_EQ(model["similarity"], "lncc");
  EXPECT_EQ(model["lncc_radius"], 2);
  EXPECT_NEAR(model["sigma"].get<double>(), 2.0, 1e-12);  // 0.2 a mm
  EXPECT_EQ(read_momentum_model(folder_ / "momenta").similarity, Similarity::lncc);
  ASSERT_EQ(run_shell(command("--shard 1/2", "squares")).status, 0);
  EXPECT_FALSE(nlohmann::json::parse(made("momenta.json", "squares"))["model"].contains("similarity"));
  EXPECT_NE(made("a_to_b.safetensors"), made("a_to_b.safetensors", "squares"));
  EXPECT_NE(run_shell(command("--shard 1/2")).status, 0) << "went on in a folder of another similarity";
}

TEST_F(Momenta, GoesOnWhereItStopped) {
  ASSERT_EQ(run_shell(command("--shard 1/2")).status, 0);
  const std::string first = made("a_to_b.safetensors");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "momenta/b_to_a.json"));
  std::filesystem::remove(folder_ / "momenta/a_to_b.json");  // as if stopped between the two files
  const CommandResult rest = run_shell(command());
  ASSERT_EQ(rest.status, 0) << rest.output;
  EXPECT_NE(rest.output.find("2 momenta made, 0 there already"), std::string::npos) << rest.output;
  EXPECT_EQ(made("a_to_b.safetensors"), first);
  const CommandResult again = run_shell(command());
  EXPECT_NE(again.output.find("0 momenta made, 2 there already"), std::string::npos) << again.output;
}

TEST_F(Momenta, KnowsItsScansAndItsFiles) {
  ASSERT_EQ(run_shell(command("--shard 1/2")).status, 0);
  std::filesystem::remove(folder_ / "momenta/a_to_b.safetensors");
  const CommandResult again = run_shell(command("--shard 1/2"));
  EXPECT_NE(again.output.find("1 momenta made, 0 there already"), std::string::npos) << again.output;
  write_bytes(folder_ / "pairs.csv", "moving,fixed,name\nb.nii.gz,a.nii.gz,a_to_b\n");
  const CommandResult other = run_shell(command());
  EXPECT_EQ(other.status, 1);
  EXPECT_NE(other.output.find("other scans than the pair a_to_b"), std::string::npos) << other.output;
  write_bytes(folder_ / "pairs.csv", "moving,fixed,name\nb.nii.gz,a.nii.gz,momenta\n");
  EXPECT_EQ(run_shell(command()).status, 1);
  write_bytes(folder_ / "pairs.csv", "moving,fixed,name\nb.nii.gz,a.nii.gz,p\na.nii.gz,b.nii.gz,p_a1\n");
  const CommandResult twice = run_shell(command("--augment 1", "copies"));
  EXPECT_NE(twice.output.find("p_a1, which is also the name of a deformed copy"), std::string::npos)
      << twice.output;
}

TEST_F(Momenta, SurvivesBeingKilled) {
  // Killed as soon as the first job is done, so in the middle of the second.
  const std::string first = shell_quote((folder_ / "momenta/a_to_b.json").string());
  run_shell(command() + " & until [ -e " + first + " ]; do sleep 0.05; done; kill -9 $!; wait");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "momenta/b_to_a.json"));
  EXPECT_FALSE(nlohmann::json::parse(made("a_to_b.json")).empty());
  const std::string before = made("a_to_b.safetensors");
  const CommandResult rest = run_shell(command());
  EXPECT_NE(rest.output.find("1 momenta made, 1 there already"), std::string::npos) << rest.output;
  EXPECT_EQ(made("a_to_b.safetensors"), before);
}

TEST_F(Momenta, DeformsPairsAlikeInAnyShard) {
  ASSERT_EQ(run_shell(command("--augment 1", "whole")).status, 0);
  ASSERT_EQ(run_shell(command("--augment 1 --shard 2/2", "part")).status, 0);
  EXPECT_EQ(made("b_to_a_a1.safetensors", "part"), made("b_to_a_a1.safetensors", "whole"));
  EXPECT_NE(made("b_to_a_a1.safetensors", "whole"), made("b_to_a.safetensors", "whole"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "part/a_to_b_a1.json"));
}

TEST_F(Momenta, RefusesBadInputInOneLine) {
  const auto expect_refused = [&](const std::string& options, const std::string& reason, int code = 1) {
    const CommandResult result = run_shell(command(options));
    EXPECT_EQ(result.status, code) << result.output;
    EXPECT_NE(result.output.find(reason), std::string::npos) << result.output;
  };
  expect_refused("--shard 3/2", "--shard '3/2'");
  expect_refused("--shard 1", "--shard '1'");
  expect_refused("--resolution 0", "--resolution", 2);
  ASSERT_EQ(run_shell(command("--shard 1/2")).status, 0);
  expect_refused("--time-steps 7", "momenta.json: model");
  write_bytes(folder_ / "momenta/momenta.json", "{");
  expect_refused("", "momenta.json");
}

TEST_F(Momenta, APairThatFailsDoesNotStopTheOthers) {
  write_bytes(folder_ / "broken.nii", "not a scan");
  write_bytes(folder_ / "pairs.csv", "moving,fixed\nbroken.nii,b.nii.gz\nb.nii.gz,a.nii.gz\n");
  const CommandResult result = run_shell(command());
  EXPECT_EQ(result.status, 1);
  EXPECT_NE(result.output.find("broken_to_b  failed"), std::string::npos) << result.output;
  EXPECT_NE(result.output.find("1 of the pairs"), std::string::npos) << result.output;
  EXPECT_FALSE(std::filesystem::exists(folder_ / "momenta/broken_to_b.safetensors"));
  EXPECT_TRUE(std::filesystem::exists(folder_ / "momenta/b_to_a.json"));
}

TEST_F(Momenta, AFullDiskIsOneErrorAndLeavesNothingHalfWritten) {
  const CommandResult result = run_shell("trap '' XFSZ; ulimit -f 8; " + command());
  EXPECT_EQ(result.status, 1) << result.output;
  EXPECT_NE(result.output.find("a_to_b.safetensors"), std::string::npos) << result.output;
  EXPECT_EQ(run_shell("ls -A " + shell_quote((folder_ / "momenta").string())).output, "momenta.json\n");
}

}  // namespace
}  // namespace cinnabar::registration
