#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <regex>

#include "tests/child_process.hpp"
#include "tests/scratch_folder.hpp"

// The programs of examples/, run as a user would.

namespace cinnabar::testing {
namespace {

const std::string kScan = "/usr/share/mricron/templates/ch2bet.nii.gz";

CommandResult run_example(const std::string& name, const std::vector<std::string>& arguments) {
  std::vector<std::string> words{std::string(CINNABAR_BINARY_DIR) + "/examples/example_" + name};
  words.insert(words.end(), arguments.begin(), arguments.end());
  return run_command(words);
}

/// The number after `name` in what a program printed.
double figure(const std::string& output, const std::string& name) {
  std::smatch found;
  if (!std::regex_search(output, found, std::regex(name + " ([-+.0-9e]+)"))) return NAN;
  return std::stod(found[1]);
}

TEST(Examples, DenoiseBeatsSmoothing) {
  if (!std::filesystem::exists(kScan)) GTEST_SKIP() << "no " << kScan << ": install mricron-data";
  const ScratchFolder folder;
  const CommandResult result = run_example("denoise", {kScan, folder / "picture.png", "150"});
  ASSERT_EQ(result.status, 0) << result.output;
  EXPECT_GT(figure(result.output, "smoothed"), figure(result.output, "noisy") + 4.0) << result.output;
  EXPECT_GT(figure(result.output, "denoised"), figure(result.output, "smoothed")) << result.output;
  EXPECT_GT(std::filesystem::file_size(folder / "picture.png"), 10000u);
}

TEST(Examples, DenoiseNamesAFileItCannotRead) {
  const CommandResult result = run_example("denoise", {"no_such_scan.nii.gz", "picture.png"});
  EXPECT_EQ(result.status, 1);
  EXPECT_NE(result.output.find("no_such_scan.nii.gz"), std::string::npos) << result.output;
  EXPECT_FALSE(std::filesystem::exists("picture.png"));
  EXPECT_EQ(run_example("denoise", {}).status, 2);
}

TEST(Examples, CpabUndoesAWarpOfASlice) {
  if (!std::filesystem::exists(kScan)) GTEST_SKIP() << "no " << kScan << ": install mricron-data";
  const ScratchFolder folder;
  const CommandResult result = run_example("cpab", {kScan, folder / "picture.png"});
  ASSERT_EQ(result.status, 0) << result.output;
  EXPECT_LT(figure(result.output, "after"), 0.3 * figure(result.output, "before")) << result.output;
  EXPECT_GT(std::filesystem::file_size(folder / "picture.png"), 10000u);
  EXPECT_EQ(run_example("cpab", {"no_such_scan.nii.gz", "picture.png"}).status, 1);
}

TEST(Examples, CpabAlignsSignals) {
  if (!std::filesystem::exists(kScan)) GTEST_SKIP() << "no " << kScan << ": install mricron-data";
  const ScratchFolder folder;
  const CommandResult result = run_example("cpab_signals", {kScan, folder / "picture.png"});
  ASSERT_EQ(result.status, 0) << result.output;
  EXPECT_LT(figure(result.output, "after"), 0.3 * figure(result.output, "before")) << result.output;
  EXPECT_GT(std::filesystem::file_size(folder / "picture.png"), 1000u);
}

TEST(Examples, SpatialTransformerStraightensSlices) {
  if (!std::filesystem::exists(kScan)) GTEST_SKIP() << "no " << kScan << ": install mricron-data";
  const ScratchFolder folder;
  const CommandResult result = run_example("spatial_transformer", {kScan, folder / "picture.png", "100"});
  ASSERT_EQ(result.status, 0) << result.output;
  EXPECT_LT(figure(result.output, "after"), 0.65 * figure(result.output, "before")) << result.output;
  EXPECT_GT(std::filesystem::file_size(folder / "picture.png"), 10000u);
  EXPECT_EQ(run_example("spatial_transformer", {"no_such_scan.nii.gz", "picture.png"}).status, 1);
}

TEST(Examples, IcStnComesCloserStepByStep) {
  if (!std::filesystem::exists(kScan)) GTEST_SKIP() << "no " << kScan << ": install mricron-data";
  const ScratchFolder folder;
  const CommandResult result = run_example("ic_stn", {kScan, folder / "picture.png", "100"});
  ASSERT_EQ(result.status, 0) << result.output;
  double last = figure(result.output, "before");
  for (const char* name : {"after1", "after2", "after3", "after4"}) {
    EXPECT_LT(figure(result.output, name), last) << result.output;
    last = figure(result.output, name);
  }
  EXPECT_LT(last, 0.55 * figure(result.output, "before")) << result.output;
  EXPECT_GT(std::filesystem::file_size(folder / "picture.png"), 10000u);
}

TEST(Examples, VoxelmorphUndoesDeformations) {
  if (!std::filesystem::exists(kScan)) GTEST_SKIP() << "no " << kScan << ": install mricron-data";
  const ScratchFolder folder;
  const CommandResult result = run_example("voxelmorph", {kScan, folder / "picture.png", "150"});
  ASSERT_EQ(result.status, 0) << result.output;
  EXPECT_LT(figure(result.output, "after"), 0.9 * figure(result.output, "before")) << result.output;
  EXPECT_GT(figure(result.output, "Jacobian"), 0.0) << result.output;
  EXPECT_GT(std::filesystem::file_size(folder / "picture.png"), 10000u);
  EXPECT_EQ(run_example("voxelmorph", {"no_such_scan.nii.gz", "picture.png"}).status, 1);
}

TEST(Examples, CoordConvNamesPlacesItWasNeverTaught) {
  const ScratchFolder folder;
  const CommandResult result = run_example("coord_conv", {folder / "picture.png"});
  ASSERT_EQ(result.status, 0) << result.output;
  EXPECT_GT(figure(result.output, "coordconv others"), 0.9) << result.output;
  EXPECT_LT(figure(result.output, "plain others"), 0.3) << result.output;
  EXPECT_GT(std::filesystem::file_size(folder / "picture.png"), 500u);
}

TEST(Examples, DeformableConvolutionMovesItsTaps) {
  if (!std::filesystem::exists(kScan)) GTEST_SKIP() << "no " << kScan << ": install mricron-data";
  const ScratchFolder folder;
  const CommandResult result = run_example("deform_conv", {kScan, folder / "picture.png", "80"});
  ASSERT_EQ(result.status, 0) << result.output;
  EXPECT_LT(figure(result.output, "deformable"), 0.6 * figure(result.output, "plain")) << result.output;
  EXPECT_GT(std::filesystem::file_size(folder / "picture.png"), 10000u);
  EXPECT_EQ(run_example("deform_conv", {"no_such_scan.nii.gz", "picture.png"}).status, 1);
}

TEST(Examples, UnetFindsTheBrain) {
  const std::string head = "/usr/share/mricron/templates/ch2.nii.gz";
  if (!std::filesystem::exists(head)) GTEST_SKIP() << "no " << head << ": install mricron-data";
  const ScratchFolder folder;
  const CommandResult result = run_example("unet", {head, kScan, folder / "picture.png"});
  ASSERT_EQ(result.status, 0) << result.output;
  EXPECT_LT(figure(result.output, "before"), 0.5) << result.output;
  EXPECT_GT(figure(result.output, "after"), 0.8) << result.output;
  EXPECT_GT(std::filesystem::file_size(folder / "picture.png"), 10000u);
  EXPECT_EQ(run_example("unet", {head, "no_such_mask.nii.gz", "picture.png"}).status, 1);
}

TEST(Examples, SiameseFindsSlicesAgain) {
  if (!std::filesystem::exists(kScan)) GTEST_SKIP() << "no " << kScan << ": install mricron-data";
  const ScratchFolder folder;
  const CommandResult result = run_example("siamese", {kScan, folder / "picture.png"});
  ASSERT_EQ(result.status, 0) << result.output;
  EXPECT_LT(figure(result.output, "network"), 0.7 * figure(result.output, "cross-correlation"))
      << result.output;
  EXPECT_GT(std::filesystem::file_size(folder / "picture.png"), 10000u);
  EXPECT_EQ(run_example("siamese", {"no_such_scan.nii.gz", "picture.png"}).status, 1);
}

TEST(Examples, TransformationsDrawEveryFamily) {
  if (!std::filesystem::exists(kScan)) GTEST_SKIP() << "no " << kScan << ": install mricron-data";
  const ScratchFolder folder;
  const std::vector<std::string> families{"affine", "attention",    "homography", "tps",
                                          "cpab",   "displacement", "velocity"};
  std::vector<std::string> words{kScan, folder / "all.png"};
  words.insert(words.end(), families.begin(), families.end());
  EXPECT_EQ(run_example("transformations", words).status, 0);
  EXPECT_EQ(run_example("transformations", {kScan, folder / "one.png", "homography"}).status, 0);
  EXPECT_GT(std::filesystem::file_size(folder / "all.png"), std::filesystem::file_size(folder / "one.png"));
  const CommandResult unknown = run_example("transformations", {kScan, folder / "no.png", "moebius"});
  EXPECT_EQ(unknown.status, 1);
  EXPECT_NE(unknown.output.find("moebius"), std::string::npos) << unknown.output;
  EXPECT_FALSE(std::filesystem::exists(folder / "no.png"));
}

}  // namespace
}  // namespace cinnabar::testing
