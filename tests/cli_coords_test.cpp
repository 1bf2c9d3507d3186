// cinnabar train coords and train siamese: what they print and write, and what they refuse.

#include <gtest/gtest.h>

#include <algorithm>

#include "models/slice_matching.hpp"
#include "registration/nifti.hpp"
#include "tests/synthetic_head.hpp"
#include "tests/train_small.hpp"

namespace cinnabar::testing {
namespace {

class TrainCoords : public TrainSmall {
 protected:
  void SetUp() override {
    usual_ = {"coords", "--side", "8", "--square", "3", "--epochs", "2", "--seeds", "2", "--threads", "1"};
  }
};

TEST_F(TrainCoords, WritesATable) {
  const CommandResult result = train({"--out", at("coords.csv")});
  ASSERT_EQ(result.status, 0) << result.output;
  EXPECT_NE(result.output.find("36 of 8 x 8 pixels"), std::string::npos) << result.output;
  const std::string table = read_bytes(folder_ / "coords.csv");
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 9) << table;
  EXPECT_NE(table.find("\nclassify,quadrant,coordconv,1,"), std::string::npos) << table;
  EXPECT_EQ(folder_.count(), 1) << "a temporary file was left";
  EXPECT_EQ(train({"--task", "regress", "--layer", "plain", "--split", "uniform", "--seed", "5"}).status, 0);
  EXPECT_EQ(folder_.count(), 1);
}

TEST_F(TrainCoords, RefusesWhatItCannotDo) {
  usual_ = {"coords"};
  expect_refused({"--layer", "dense"}, 2, "dense");
  expect_refused({"--split", "half"}, 2, "half");
  expect_refused({"--task", "paint"}, 2, "paint");
  expect_refused({"--side", "12"}, 1, "--side is 12");
  expect_refused({"--square", "4"}, 1, "--square is 4");
  expect_refused({"--out", at("missing/coords.csv")}, 1, "change --out");
}

class TrainSiamese : public TrainSmall {
 protected:
  void SetUp() override {
    using namespace registration;
    const Geometry grid = axis_aligned_grid({22, 24, 20}, {5, 5, 5}, {-52, -58, -48});
    std::string list = "scan\n";
    for (int i = 0; i < 6; ++i) {
      const std::string name = std::to_string(i) + ".nii.gz";
      write_image(folder_ / name, head(grid, 2.0 * i, 1.0));
      list += name + "\n";
    }
    write_bytes(folder_ / "scans.csv", list);
    usual_ = {"siamese",    "--scans", at("scans.csv"), "--side", "16", "--pixel",  "8",
              "--distance", "4",       "--channels",    "4",      "8",  "--epochs", "2",
              "--threads",  "1"};
  }
};

TEST_F(TrainSiamese, WritesATableAndNetworks) {
  const CommandResult result = train({"--seeds", "2", "--out", at("net.safetensors")});
  ASSERT_EQ(result.status, 0) << result.output;
  EXPECT_NE(result.output.find("4 scans to train on, 2 others to test on"), std::string::npos);
  for (const char* row : {"\nchance ", "\nncc ", "\ncontrastive ", "\ncorrelation "}) {
    EXPECT_NE(result.output.find(row), std::string::npos) << row << result.output;
  }
  const std::string table = read_bytes(folder_ / "net.csv");
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 7) << table;
  EXPECT_NE(table.find("\ncorrelation,none,1,"), std::string::npos) << table;
  const auto network = load_slice_matcher(folder_ / "net_correlation.safetensors");
  EXPECT_EQ(network->options().loss, MatchingLoss::correlation);
  EXPECT_EQ(folder_.count(), 10) << "a temporary file was left";
  // Alone and again, it is the same network.
  ASSERT_EQ(train({"--loss", "correlation", "--seeds", "1", "--out", at("one.safetensors")}).status, 0);
  EXPECT_TRUE(read_bytes(folder_ / "one.safetensors") == read_bytes(folder_ / "net_correlation.safetensors"));
}

TEST_F(TrainSiamese, RefusesWhatItCannotDo) {
  expect_refused({"--loss", "triplet"}, 2, "triplet");
  expect_refused({"--warp", "rubber"}, 2, "rubber");
  expect_refused({"--out", at("missing/net.safetensors")}, 1, "change --out");
  expect_refused({"--gap", "0"}, 2, "--gap");
  expect_refused({"--scans", at("no.nii.gz")}, 1, "no.nii.gz");
  write_bytes(folder_ / "scans.csv", "scan\n0.nii.gz\n1.nii.gz\n");
  expect_refused({}, 1, "across subjects, 2: give six");
  const CommandResult help = run_command({kProgram, "train", "--help"});
  EXPECT_NE(help.output.find("siamese"), std::string::npos) << help.output;
}

}  // namespace
}  // namespace cinnabar::testing
