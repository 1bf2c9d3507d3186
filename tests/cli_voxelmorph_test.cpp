// cinnabar train voxelmorph and register --method voxelmorph on tiny heads: what they write, that a kill
// loses nothing, and what they refuse.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "models/quicksilver_file.hpp"
#include "models/voxelmorph_file.hpp"
#include "registration/nifti.hpp"
#include "tests/child_process.hpp"
#include "tests/scratch_folder.hpp"
#include "tests/synthetic_head.hpp"

namespace cinnabar::registration {
namespace {

namespace fs = std::filesystem;
using cinnabar::testing::CommandResult;
using cinnabar::testing::head;
using cinnabar::testing::kProgram;
using cinnabar::testing::read_bytes;
using cinnabar::testing::run_shell;
using cinnabar::testing::ScratchFolder;
using cinnabar::testing::shell_quote;
using cinnabar::testing::write_bytes;

class VoxelmorphCommand : public ::testing::Test {
 protected:
  /// Three heads on grids of their own, and three pairs of them, the last of which validates.
  void SetUp() override {
    const Geometry grids[] = {axis_aligned_grid({18, 20, 16}, {5, 5, 5}, {-42, -48, -38}),
                              axis_aligned_grid({21, 19, 17}, {4.5, 5, 5}, {-45, -46, -40}),
                              axis_aligned_grid({17, 21, 18}, {5, 4.8, 4.6}, {-41, -49, -41})};
    for (int i = 0; i < 3; ++i) {
      write_image((folder_ / ("s" + std::to_string(i) + ".nii.gz")).string(),
                  head(grids[i], 2.0 * i, 1.0 + 0.2 * i));
    }
    write_bytes(
        folder_ / "pairs.csv",
        "moving,fixed,split\ns0.nii.gz,s1.nii.gz,\ns1.nii.gz,s0.nii.gz,\ns2.nii.gz,s0.nii.gz,validation\n");
  }

  /// In a folder of its own, so that commands are the same and outputs are not; pairs are prepared once.
  std::string training(const std::string& where, const std::string& options,
                       const std::string& runner = {}) const {
    fs::create_directories(folder_ / where);
    return detail::concat(
        "cd ", shell_quote((folder_ / where).string()), " && exec ", runner, shell_quote(kProgram),
        " train voxelmorph --pairs ../pairs.csv --out net.safetensors --prepared ../prepared "
        "--spacing 12 --features 2 --levels 2 --device cpu --threads 1 ",
        options);
  }
  CommandResult train(const std::string& where, const std::string& options = "--epochs 3") const {
    return run_shell(detail::concat("(", training(where, options), ") 2>&1"));
  }
  std::string registration(const std::string& options,
                           const std::string& network = "a/net.safetensors") const {
    return detail::concat(shell_quote(kProgram), " register --method voxelmorph --fixed ",
                          shell_quote((folder_ / "s0.nii.gz").string()), " --moving ",
                          shell_quote((folder_ / "s2.nii.gz").string()), " --output ",
                          shell_quote((folder_ / "out_").string()), " --threads 1 --device cpu ",
                          network.empty() ? "" : "--network " + shell_quote((folder_ / network).string()),
                          " ", options);
  }
  std::string made(const std::string& where, const std::string& name) const {
    return read_bytes(folder_ / where / name);
  }
  /// One line that gives the reason.
  void expect_refused(const std::string& command, const std::string& reason, int status = 1) const {
    const CommandResult result = run_shell("(" + command + ") 2>&1 >/dev/null");
    EXPECT_EQ(result.status, status) << result.output;
    EXPECT_NE(result.output.find(reason), std::string::npos) << result.output << " should say: " << reason;
    EXPECT_EQ(result.output.find('\n'), result.output.size() - 1) << result.output;
  }

  ScratchFolder folder_;
};

TEST_F(VoxelmorphCommand, TrainsAndRegisters) {
  const CommandResult result = train("a", "--epochs 4 --symmetric --swap --mirror --smoothness 0.5");
  ASSERT_EQ(result.status, 0) << result.output;
  EXPECT_NE(result.output.find("2 to train on, 1 to validate with"), std::string::npos) << result.output;
  const VoxelmorphDescription description = load_voxelmorph(folder_ / "a" / "net.safetensors").description;
  EXPECT_TRUE(description.network.symmetric);
  EXPECT_EQ(description.loss.smoothness, 0.5);
  EXPECT_EQ(description.spacing_mm, 12.0);
  EXPECT_EQ(description.head_voxels, 810.0);
  EXPECT_EQ(description.notes.at("training pairs"), "2");
  EXPECT_TRUE(made("a", "net_loss.csv").starts_with("step,epoch,"));
  EXPECT_TRUE(made("a", "net_loss.svg").starts_with("<svg"));
  EXPECT_TRUE(fs::exists(folder_ / "prepared" / "s2_to_s0.safetensors"));

  const CommandResult registered = run_shell(registration("") + " 2>&1");
  ASSERT_EQ(registered.status, 0) << registered.output;
  EXPECT_NE(registered.output.find("non-positive Jac."), std::string::npos) << registered.output;
  for (const char* name :
       {"0GenericAffine.mat", "1Warp.nii.gz", "1InverseWarp.nii.gz", "Warped.nii.gz", "InverseWarped.nii.gz",
        "Velocity.nii.gz", "Jacobian.nii.gz", "mosaic.png", "report.html"}) {
    EXPECT_TRUE(fs::exists(folder_ / (std::string("out_") + name))) << name;
  }
  EXPECT_FALSE(fs::exists(folder_ / "out_Momentum.nii.gz"));
  const nlohmann::json record = nlohmann::json::parse(read_bytes(folder_ / "out_run.json"));
  EXPECT_EQ(record["method"], "voxelmorph");
  ASSERT_EQ(record["networks"].size(), 1u);
  EXPECT_EQ(record["networks"][0]["role"], "voxelmorph");
  EXPECT_EQ(record["networks"][0]["crc32"].get<std::string>().size(), 8u);
  EXPECT_EQ(record["parameters"]["smoothness"], 0.5);
  EXPECT_EQ(record["parameters"]["head_voxels"], 810.0);
  EXPECT_FALSE(record["parameters"].contains("alpha"));
  EXPECT_EQ(record["iterations"], 0);
  EXPECT_GE(record["nonpositive_jacobian_fraction"].get<double>(), 0.0);
  for (const char* stage : {"affine", "prediction", "integration"}) {
    EXPECT_TRUE(record["stage_seconds"].contains(stage)) << stage;
  }
  const Image warped = read_image((folder_ / "out_Warped.nii.gz").string());
  EXPECT_TRUE(same_grid(warped.geometry, read_image((folder_ / "s0.nii.gz").string()).geometry));
  const CommandResult info =
      run_shell(shell_quote(kProgram) + " info " + shell_quote((folder_ / "a/net.safetensors").string()));
  EXPECT_NE(info.output.find("network of VoxelMorph: 2 features"), std::string::npos) << info.output;

  // Another grid than the network's, and its symmetry: exchanged images have the inverse map.
  const std::string velocity = read_bytes(folder_ / "out_Velocity.nii.gz");
  ASSERT_EQ(run_shell(registration("--resolution 9") + " 2>&1").status, 0);
  EXPECT_NE(read_bytes(folder_ / "out_Velocity.nii.gz"), velocity);
}

TEST_F(VoxelmorphCommand, KilledAndInterruptedItEndsWithTheSameBytes) {
  const std::string options =
      "--epochs 60 --checkpoint-minutes 0 --swap --mirror --moving-average 0.9 --schedule cosine "
      "--validation-steps 30";
  const CommandResult whole = train("whole", options);
  ASSERT_EQ(whole.status, 0) << whole.output;
  const auto stop_with = [&](const std::string& signal, int checkpoints) {
    const std::string folder = shell_quote((folder_ / "parts").string());
    return run_shell(
        detail::concat("(", training("parts", options, "nice -n 19 "), ") >/dev/null 2>", folder,
                       "/said & child=$!; cd ", folder, "; seen=0; last=; while [ $seen -lt ", checkpoints,
                       " ]; do now=$(stat -c %i%y%z net.checkpoint.safetensors 2>/dev/null); "
                       "[ \"$now\" != \"$last\" ] && seen=$((seen+1)) && last=$now; sleep 0.01; done; kill -",
                       signal, " $child; wait $child"));
  };
  fs::create_directories(folder_ / "parts");
  EXPECT_EQ(stop_with("KILL", 2).status, 128 + 9);
  EXPECT_EQ(stop_with("INT", 2).status, 130);
  const CommandResult rest = train("parts", options);
  ASSERT_EQ(rest.status, 0) << rest.output;
  EXPECT_NE(rest.output.find("goes on     after batch"), std::string::npos) << rest.output;
  for (const char* name : {"net.safetensors", "net_loss.csv", "net_loss.svg", "net.checkpoint.safetensors"}) {
    EXPECT_TRUE(made("parts", name) == made("whole", name)) << name;
  }
  for (const auto& entry : fs::directory_iterator(folder_ / "parts")) {
    const std::string kind = entry.path().extension();
    EXPECT_TRUE(kind != ".tmp" && kind != ".partial") << entry.path();
  }
}

TEST_F(VoxelmorphCommand, RefusesInOneLine) {
  ASSERT_EQ(train("a").status, 0);
  expect_refused(training("a", "--epochs 3 --smoothness 2"), "--smoothness is 2 but was 1");
  expect_refused(training("a", "--epochs 3 --swap"), "--swap is on but was off");
  expect_refused(training("b", "--epochs 3 --no-head-scaling"),
                 "pairs.json: head_voxels is 810.0 there and 0.0 now");
  expect_refused(training("b", "--loss mind"), "--loss", 2);
  expect_refused(training("b", "--initial ../pairs.csv"), "pairs.csv");
  write_bytes(folder_ / "pairs.csv", "moving,fixed\ns0.nii.gz,s9.nii.gz\n");
  expect_refused(training("b", ""), "pairs.csv:2: the fixed scan");
  expect_refused(training("a", "--epochs 3"), "s9.nii.gz does not exist");

  expect_refused(registration("", ""), "needs a network that cinnabar train voxelmorph made");
  expect_refused(registration("", "absent.safetensors"), "absent.safetensors");
  expect_refused(registration("", "pairs.csv"), "pairs.csv");
  expect_refused(registration("--alpha 1"), "--alpha is not for --method voxelmorph");
  expect_refused(registration("--samples 3"), "--samples is not for --method voxelmorph");
  expect_refused(registration("--sigma 3"), "--sigma is not for --method voxelmorph");
  const std::string whole = made("a", "net.safetensors");
  write_bytes(folder_ / "half.safetensors", whole.substr(0, whole.size() / 2));
  expect_refused(registration("", "half.safetensors"), "half.safetensors");
  save_quicksilver(folder_ / "other.safetensors", Quicksilver({.features = 1, .patch = {5, 5, 5}}), {});
  expect_refused(registration("", "other.safetensors"), "not a network of VoxelMorph");
  EXPECT_FALSE(fs::exists(folder_ / "out_run.json"));
}

}  // namespace
}  // namespace cinnabar::registration
