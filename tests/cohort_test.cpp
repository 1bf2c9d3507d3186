#include "registration/cohort.hpp"

#include <gtest/gtest.h>

#include "engine/error.hpp"
#include "tests/scratch_folder.hpp"

namespace cinnabar::registration {
namespace {

using cinnabar::testing::ScratchFolder;
using cinnabar::testing::write_bytes;

class PairList : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"a.nii.gz", "b.nii", "with, comma.nii"}) write_bytes(folder_ / name, "scan");
  }
  std::vector<PairEntry> read(const std::string& text) {
    write_bytes(folder_ / "pairs.csv", text);
    return read_pairs(folder_ / "pairs.csv");
  }
  void expect_refused(const std::string& text, const std::string& reason) {
    try {
      read(text);
      ADD_FAILURE() << "accepted: " << text;
    } catch (const InputError& error) {
      EXPECT_NE(std::string(error.what()).find("pairs.csv"), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find(reason), std::string::npos) << error.what();
    }
  }

  ScratchFolder folder_;
};

TEST_F(PairList, NamesPairsAfterTheirScansAndFindsThemBesideTheList) {
  const auto pairs =
      read("moving,fixed\na.nii.gz,b.nii\n" + (folder_ / "b.nii").string() + " , a.nii.gz\r\n");
  ASSERT_EQ(pairs.size(), 2u);
  EXPECT_EQ(pairs[0].name, "a_to_b");
  EXPECT_EQ(pairs[0].moving, folder_ / "a.nii.gz");
  EXPECT_EQ(pairs[0].fixed, folder_ / "b.nii");
  EXPECT_EQ(pairs[0].split, PairSplit::unspecified);
  EXPECT_EQ(pairs[1].name, "b_to_a");
}

TEST_F(PairList, TakesColumnsInAnyOrderQuotesAndComments) {
  const auto pairs = read(
      "\xEF\xBB\xBF# scans of spring\n\nsplit,fixed,name,moving\n"
      "training,a.nii.gz,one,\"with, comma.nii\"\nvalidation,b.nii,two.2,a.nii.gz\n");
  ASSERT_EQ(pairs.size(), 2u);
  EXPECT_EQ(pairs[0].name, "one");
  EXPECT_EQ(pairs[0].moving, folder_ / "with, comma.nii");
  EXPECT_EQ(pairs[0].split, PairSplit::training);
  EXPECT_EQ(pairs[1].split, PairSplit::validation);
}

TEST_F(PairList, NamesTheLineAtFault) {
  expect_refused("", "empty");
  expect_refused("moving,fixed\n", "no pair");
  expect_refused("moving\na.nii.gz\n", "columns moving and fixed");
  expect_refused("moving,fixed,age\na.nii.gz,b.nii,7\n", "'age'");
  expect_refused("moving,fixed\na.nii.gz\n", ":2: 1 cells where the header has 2");
  expect_refused("moving,fixed\na.nii.gz,\n", "fixed scan is missing");
  expect_refused("moving,fixed\na.nii.gz,b.nii\n\nc.nii,b.nii\n", ":4: the moving scan");
  expect_refused("moving,fixed,name\na.nii.gz,b.nii,../x\n", "'../x'");
  expect_refused("moving,fixed\na.nii.gz,b.nii\na.nii.gz,b.nii\n", "a_to_b comes twice");
  expect_refused("moving,fixed,split\na.nii.gz,b.nii,test\n", "'test'");
  EXPECT_THROW(read_pairs(folder_ / "absent.csv"), InputError);
}

}  // namespace
}  // namespace cinnabar::registration
