// Registration by small networks of Quicksilver with random weights, on synthetic scans: what the methods
// write, repeat and refuse. How well trained networks register stands in docs/results.md.

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "models/quicksilver_file.hpp"
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

/// The model of cinnabar momenta at 10 mm.
MomentumModel coarse_model() {
  MomentumModel model;
  model.fluid = {0.008, 0.008, 0.001, 1};
  model.sigma = 0.6;
  model.time_steps = 3;
  model.head_voxels = 1400.0;
  return model;
}

class QuicksilverCommand : public ::testing::Test {
 protected:
  void SetUp() override {
    const Geometry grid = axis_aligned_grid({28, 32, 26}, {3, 3, 3}, {-42, -48, -39});
    write_image(at("fixed.nii.gz"), head(grid, 0, 1.0));
    write_image(at("moving.nii.gz"), head(grid, 5, 1.2));
    write_network("net.safetensors", {});
  }
  std::string at(const std::string& name) const { return (folder_ / name).string(); }

  /// `gain` multiplies the last weights, and so the momenta.
  struct Network {
    double gain = 10.0;
    double dropout = 0.0;
    QuicksilverRole role = QuicksilverRole::prediction;
    MomentumModel model = coarse_model();
    std::uint64_t seed = 1;
  };
  void write_network(const std::string& name, const Network& wanted) const {
    Quicksilver network({.features = 2, .patch = {7, 7, 7}, .dropout = wanted.dropout, .seed = wanted.seed});
    for (const auto& [path, parameter] : network.named_parameters()) {
      if (path.find("_2.conv_output") == std::string::npos) continue;
      Tensor value = parameter.value();
      for (std::int64_t i = 0; i < value.numel(); ++i) {
        value.data<float>()[i] *= static_cast<float>(wanted.gain);
      }
    }
    save_quicksilver(at(name), network,
                     {.network = {}, .role = wanted.role, .momenta = wanted.model, .notes = {}});
  }

  std::string command(const std::string& options, const std::string& network = "net.safetensors",
                      const std::filesystem::path& program = kProgram) const {
    return shell_quote(program.string()) + " register --fixed " + shell_quote(at("fixed.nii.gz")) +
           " --moving " + shell_quote(at("moving.nii.gz")) + " --output " + shell_quote(at("out_")) +
           " --affine none --stride 6 --device cpu " +
           (network.empty() ? "" : "--network " + shell_quote(at(network)) + " ") + options + " 2>&1";
  }
  nlohmann::json run(const std::string& options, const std::string& network = "net.safetensors") {
    const CommandResult result = run_shell(command(options, network));
    EXPECT_EQ(result.status, 0) << result.output;
    output_ = result.output;
    return result.status == 0 ? nlohmann::json::parse(made("run.json")) : nlohmann::json();
  }
  std::string made(const std::string& name) const { return read_bytes(at("out_" + name)); }
  bool exists(const std::string& name) const { return std::filesystem::exists(at("out_" + name)); }

  void expect_refused(const std::string& line, const std::string& reason) const {
    const CommandResult result = run_shell(line);
    EXPECT_EQ(result.status, 1) << result.output;
    EXPECT_NE(result.output.find(reason), std::string::npos) << result.output;
    EXPECT_FALSE(exists("run.json"));
  }

  ScratchFolder folder_;
  std::string output_;
};

TEST_F(QuicksilverCommand, PredictsAndWritesWhatLddmmWrites) {
  const nlohmann::json record = run("--method quicksilver");
  for (const char* name :
       {"0GenericAffine.mat", "1Warp.nii.gz", "1InverseWarp.nii.gz", "Warped.nii.gz", "InverseWarped.nii.gz",
        "Momentum.nii.gz", "Jacobian.nii.gz", "mosaic.png", "report.html", "run.json"}) {
    EXPECT_TRUE(exists(name)) << name;
  }
  EXPECT_FALSE(exists("DeformationMean.nii.gz"));
  EXPECT_EQ(record["method"], "quicksilver");
  EXPECT_EQ(record["iterations"], 0);
  ASSERT_EQ(record["networks"].size(), 1u);
  EXPECT_EQ(record["networks"][0]["role"], "prediction");
  EXPECT_EQ(record["networks"][0]["crc32"].get<std::string>().size(), 8u);
  EXPECT_GT(record["prediction"]["patches"].get<int>(), 0);
  EXPECT_EQ(record["prediction"]["corrections"], 0);
  EXPECT_EQ(record["prediction"]["kept_length"], 1.0);
  for (const char* stage : {"affine", "prediction", "shooting"}) {
    EXPECT_TRUE(record["stage_seconds"].contains(stage)) << stage;
  }
  // The head has the size the network was trained on, and the metric is the network's.
  EXPECT_EQ(record["parameters"]["alpha"], 0.008);
  EXPECT_GT(record["grid"]["spacing_mm"].get<double>(), 3.5);
  EXPECT_EQ(run("--method quicksilver --resolution 4")["grid"]["spacing_mm"].get<double>(), 4.0);
}

TEST_F(QuicksilverCommand, BitsDependOnNeitherBatchNorThreads) {
  run("--method quicksilver --batch 64 --threads 1");
  const std::string warp = made("1Warp.nii.gz"), momentum = made("Momentum.nii.gz");
  run("--method quicksilver --batch 3 --threads 2");
  EXPECT_EQ(made("1Warp.nii.gz"), warp);
  EXPECT_EQ(made("Momentum.nii.gz"), momentum);
}

TEST_F(QuicksilverCommand, ComputesInTheNamedPrecision) {
  const nlohmann::json exact = run("--method quicksilver");
  EXPECT_EQ(exact["precision"], "fp32");
  const std::string momentum = made("Momentum.nii.gz");
  for (const char* precision : {"tf32", "fp16", "bf16"}) {
    const nlohmann::json rounded = run(std::string("--method quicksilver --precision ") + precision);
    EXPECT_EQ(rounded["precision"], precision);
    EXPECT_NE(made("Momentum.nii.gz"), momentum) << precision;
    EXPECT_NEAR(rounded["similarity_after"].get<double>(), exact["similarity_after"].get<double>(), 1e-3);
  }
}

TEST_F(QuicksilverCommand, AddsTheCorrection) {
  write_network("correction.safetensors", {.role = QuicksilverRole::correction, .seed = 2});
  run("--method quicksilver");
  const std::string predicted = made("Momentum.nii.gz");
  const nlohmann::json record =
      run("--method quicksilver --correction " + shell_quote(at("correction.safetensors")));
  EXPECT_NE(made("Momentum.nii.gz"), predicted);
  EXPECT_EQ(record["networks"][1]["role"], "correction");
  EXPECT_EQ(record["prediction"]["corrections"], 2);
  EXPECT_TRUE(record["stage_seconds"].contains("correction"));
}

TEST_F(QuicksilverCommand, RefinesAPrediction) {
  const double predicted = run("--method quicksilver")["similarity_after"].get<double>();
  const nlohmann::json record = run("--method quicksilver+lddmm --refine-iterations 4");
  EXPECT_GT(record["similarity_after"].get<double>(), predicted);
  EXPECT_EQ(record["method"], "quicksilver+lddmm");
  EXPECT_GT(record["iterations"].get<int>(), 0);
  EXPECT_LE(record["iterations"].get<int>(), 4);
  EXPECT_EQ(record["levels"].size(), 1u);
  EXPECT_TRUE(record["stage_seconds"].contains("refinement"));
  EXPECT_EQ(record["parameters"]["similarity"], "lncc");
  const nlohmann::json squared = run("--method quicksilver+lddmm --similarity ssd");
  EXPECT_EQ(squared["parameters"]["sigma"].get<double>(), coarse_model().sigma);
}

TEST_F(QuicksilverCommand, ShortensWhatCannotBeShotOnlyWhereAnOptimiserFollows) {
  write_network("wild.safetensors", {.gain = 1e4});
  expect_refused(command("--method quicksilver", "wild.safetensors"), "use --method quicksilver+lddmm");
  write_network("large.safetensors", {.gain = 300.0});
  run("--method quicksilver", "large.safetensors");
  EXPECT_NE(output_.find("the predicted map folds"), std::string::npos) << output_;
  const nlohmann::json record = run("--method quicksilver+lddmm --refine-iterations 1", "large.safetensors");
  EXPECT_LT(record["prediction"]["kept_length"].get<double>(), 1.0);
  EXPECT_GT(record["smallest_jacobian"].get<double>(), 0.0);
  EXPECT_NE(output_.find("shortened"), std::string::npos) << output_;
}

TEST_F(QuicksilverCommand, SamplesAProbabilisticNetwork) {
  write_network("dropping.safetensors", {.dropout = 0.2});
  const std::string options = "--method quicksilver --samples 4 --seed ";
  EXPECT_EQ(run(options + "5", "dropping.safetensors")["prediction"]["samples"], 4);
  const std::string mean = made("DeformationMean.nii.gz"), variance = made("DeformationVariance.nii.gz");
  const Image map = read_image(at("out_DeformationVariance.nii.gz"));
  EXPECT_TRUE(same_grid(map.geometry, read_image(at("fixed.nii.gz")).geometry));
  float most = 0.0f;
  for (const float value : map.voxels.to_vector<float>()) {
    EXPECT_GE(value, 0.0f);
    most = std::max(most, value);
  }
  EXPECT_GT(most, 0.0f);
  run(options + "5 --batch 7", "dropping.safetensors");
  EXPECT_EQ(made("DeformationMean.nii.gz"), mean);
  EXPECT_EQ(made("DeformationVariance.nii.gz"), variance);
  run(options + "6", "dropping.safetensors");
  EXPECT_NE(made("DeformationVariance.nii.gz"), variance);
  EXPECT_FALSE(
      run("--method quicksilver --samples 0", "dropping.safetensors")["prediction"].contains("samples"));
}

TEST_F(QuicksilverCommand, FindsTheNetworksThatComeWithIt) {
  const std::filesystem::path bin = folder_ / "prefix/bin", share = folder_ / "prefix/share/cinnabar";
  std::filesystem::create_directories(bin);
  std::filesystem::create_directories(share);
  std::filesystem::copy_file(kProgram, bin / "cinnabar");
  const std::string line = command("--method quicksilver", "", bin / "cinnabar");
  expect_refused(line, "name one with --network");
  std::filesystem::copy_file(at("net.safetensors"), share / "quicksilver_prediction.safetensors");
  const CommandResult alone = run_shell(line);
  ASSERT_EQ(alone.status, 0) << alone.output;
  EXPECT_EQ(nlohmann::json::parse(made("run.json"))["networks"].size(), 1u);
  write_network("prefix/share/cinnabar/quicksilver_correction.safetensors",
                {.role = QuicksilverRole::correction});
  ASSERT_EQ(run_shell(line).status, 0);
  EXPECT_EQ(nlohmann::json::parse(made("run.json"))["networks"].size(), 2u);
  ASSERT_EQ(run_shell(command("--method quicksilver --correction none", "", bin / "cinnabar")).status, 0);
  EXPECT_EQ(nlohmann::json::parse(made("run.json"))["networks"].size(), 1u);
}

TEST_F(QuicksilverCommand, RefusesBadNetworksAndOptionsInOneLine) {
  const std::string method = "--method quicksilver ";
  expect_refused(command(method, "absent.safetensors"), "absent.safetensors");
  write_bytes(at("text.safetensors"), "this is no network");
  expect_refused(command(method, "text.safetensors"), "text.safetensors");
  write_network("correction.safetensors", {.role = QuicksilverRole::correction});
  expect_refused(command(method, "correction.safetensors"), "name it with --correction");
  expect_refused(command(method + "--correction " + shell_quote(at("net.safetensors"))),
                 "name it with --network");
  MomentumModel other = coarse_model();
  other.fluid.alpha = 0.1;
  write_network("other.safetensors", {.role = QuicksilverRole::correction, .model = other});
  expect_refused(command(method + "--correction " + shell_quote(at("other.safetensors"))),
                 "another metric or grid");
  write_network("nowhere.safetensors", {.model = {}});
  expect_refused(command(method, "nowhere.safetensors"), "give --resolution");
  expect_refused(command("--method quicksilver+lddmm --similarity ssd --resolution 4", "nowhere.safetensors"),
                 "give --sigma");
  expect_refused(command(method + "--alpha 0.1"), "--alpha");
  expect_refused(command(method + "--iterations 10"), "--iterations");
  expect_refused(command(method + "--sigma 1"), "--sigma");
  expect_refused(command("--method lddmm"), "--network");
  expect_refused(command(method + "--refine-iterations 3"), "--refine-iterations");
}

TEST_F(QuicksilverCommand, DryRunNamesTheMethodAndItsMemory) {
  const CommandResult result = run_shell(command("--method quicksilver --dry-run"));
  EXPECT_EQ(result.status, 0) << result.output;
  EXPECT_NE(result.output.find("quicksilver"), std::string::npos) << result.output;
  EXPECT_NE(result.output.find("MiB"), std::string::npos) << result.output;
  EXPECT_FALSE(exists("run.json"));
}

}  // namespace
}  // namespace cinnabar::registration
