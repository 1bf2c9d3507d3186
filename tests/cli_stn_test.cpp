// cinnabar train stn on tiny heads: what it prints and writes, and what it refuses.

#include <gtest/gtest.h>

#include <algorithm>

#include "models/slice_classifier.hpp"
#include "registration/nifti.hpp"
#include "tests/synthetic_head.hpp"
#include "tests/train_small.hpp"

namespace cinnabar::testing {
namespace {

class TrainStn : public TrainSmall {
 protected:
  void SetUp() override {
    using namespace registration;
    const Geometry grid = axis_aligned_grid({22, 24, 20}, {5, 5, 5}, {-52, -58, -48});
    std::string list = "scan\n";
    for (int i = 0; i < 3; ++i) {
      const std::string name = std::to_string(i) + ".nii.gz";
      write_image(folder_ / name, head(grid, 2.0 * i, 1.0));
      list += name + "\n";
    }
    write_bytes(folder_ / "scans.csv", list);
    usual_ = {"stn",      "--scans", at("scans.csv"), "--side", "16", "--pixel", "8",
              "--epochs", "2",       "--threads",     "1"};
  }
};

TEST_F(TrainStn, WritesATableAndNetworks) {
  const CommandResult result =
      train({"--transformer", "none", "icstn", "--seeds", "2", "--out", at("net.safetensors")});
  ASSERT_EQ(result.status, 0) << result.output;
  EXPECT_NE(result.output.find("2 scans to train on, 1 others to test on"), std::string::npos);
  EXPECT_NE(result.output.find("\nicstn "), std::string::npos) << result.output;
  const std::string table = read_bytes(folder_ / "net.csv");
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 5) << table;
  EXPECT_NE(table.find("\nclassify,icstn,affine,1,"), std::string::npos) << table;
  EXPECT_EQ(load_slice_classifier(folder_ / "net_none.safetensors")->options().transformer, "none");
  EXPECT_EQ(load_slice_classifier(folder_ / "net_icstn.safetensors")->options().side, 16);
  EXPECT_EQ(folder_.count(), 7) << "a temporary file was left";
  // Alone and again, it is the same network.
  ASSERT_EQ(train({"--transformer", "icstn", "--seeds", "1", "--out", at("one.safetensors")}).status, 0);
  EXPECT_TRUE(read_bytes(folder_ / "one.safetensors") == read_bytes(folder_ / "net_icstn.safetensors"));
}

TEST_F(TrainStn, TakesTheHomographyWhereTheWarpIsOne) {
  ASSERT_EQ(train({"--transformer", "icstn", "--warp", "homography", "--seeds", "1", "--out",
                   at("net.safetensors")})
                .status,
            0);
  EXPECT_EQ(load_slice_classifier(folder_ / "net.safetensors")->options().transformer, "icstn-homography");
}

TEST_F(TrainStn, Aligns) {
  const CommandResult result =
      train({"--task", "align", "--transformer", "tps", "--seeds", "1", "--out", at("net.safetensors")});
  ASSERT_EQ(result.status, 0) << result.output;
  EXPECT_NE(result.output.find("difference to the unwarped slices"), std::string::npos) << result.output;
  EXPECT_NE(read_bytes(folder_ / "net.csv").find("\nalign,tps,affine,0,"), std::string::npos);
}

TEST_F(TrainStn, RefusesWhatItCannotDo) {
  expect_refused({"--transformer", "moebius"}, 2, "moebius");
  expect_refused({"--warp", "rubber"}, 2, "rubber");
  expect_refused({"--rounds", "0"}, 2, "--rounds");
  expect_refused({"--out", at("missing/net.safetensors")}, 1,
                 "missing: no such folder for the outputs: create it or change --out\n");
  expect_refused({"--task", "align", "--transformer", "none"}, 1, "nothing can be aligned");
  expect_refused({"--levels", "50"}, 1, "too few for 50 levels");
  expect_refused({"--scans", at("no.nii.gz")}, 1, "no.nii.gz");
  write_bytes(folder_ / "scans.csv", "scan\nno.nii.gz\n");
  expect_refused({}, 1, "scans.csv:2: the scan");
  const CommandResult help = run_command({kProgram, "train", "--help"});
  EXPECT_NE(help.output.find("stn"), std::string::npos) << help.output;
}

}  // namespace
}  // namespace cinnabar::testing
