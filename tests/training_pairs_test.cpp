// Which pairs are trained on, and the picture of the loss.

#include "registration/training_pairs.hpp"

#include <gtest/gtest.h>

#include <set>

#include "engine/error.hpp"
#include "registration/loss_curve.hpp"
#include "tests/scratch_folder.hpp"

namespace cinnabar::registration {
namespace {

using cinnabar::testing::ScratchFolder;
using cinnabar::testing::write_bytes;

TrainingPair pair_of(const std::string& moving, const std::string& fixed, bool copy = false) {
  return {detail::concat(moving, "_to_", fixed, copy ? "_a1" : ""),
          {},
          moving,
          fixed,
          copy,
          PairSplit::unspecified};
}

std::string subject(int i) {
  return detail::concat("s", i);
}

/// All ordered pairs of subjects, each with a copy.
std::vector<TrainingPair> all_pairs(int subjects) {
  std::vector<TrainingPair> pairs;
  for (int i = 0; i < subjects; ++i) {
    for (int j = 0; j < subjects; ++j) {
      if (i == j) continue;
      pairs.push_back(pair_of(subject(i), subject(j)));
      pairs.push_back(pair_of(subject(i), subject(j), true));
    }
  }
  return pairs;
}

std::set<std::string> subjects_in(const std::vector<TrainingPair>& pairs) {
  std::set<std::string> subjects;
  for (const TrainingPair& pair : pairs) subjects.insert({pair.moving, pair.fixed});
  return subjects;
}

TEST(TrainingPairs, NoSubjectIsOnBothSides) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const TrainingSplit split = split_by_subjects(all_pairs(8), 0.1, seed);
    EXPECT_EQ(split.validation.size(), 6u);  // of three subjects: those of two are too few
    EXPECT_EQ(split.training.size(), 40u);
    EXPECT_EQ(split.left_out, 112 - 46);
    EXPECT_EQ(split.shared, 0);
    const std::set<std::string> trained = subjects_in(split.training);
    for (const std::string& subject : subjects_in(split.validation)) EXPECT_FALSE(trained.contains(subject));
    for (const TrainingPair& pair : split.validation) EXPECT_FALSE(pair.copy);
  }
  EXPECT_TRUE(split_by_subjects(all_pairs(4), 0.0, 1).validation.empty());
}

TEST(TrainingPairs, AnAtlasBelongsToBothSides) {
  std::vector<TrainingPair> pairs;
  for (int i = 0; i < 10; ++i) pairs.push_back(pair_of(subject(i), "atlas"));
  const TrainingSplit split = split_by_subjects(pairs, 0.2, 3);
  EXPECT_EQ(split.validation.size(), 2u);
  EXPECT_EQ(split.training.size(), 8u);
  EXPECT_EQ(split.left_out, 0);
}

TEST(TrainingPairs, FewSubjectsAreSplitByPairs) {
  const TrainingSplit split = split_by_subjects(all_pairs(2), 0.5, 1);
  EXPECT_EQ(split.validation.size(), 1u);
  EXPECT_EQ(split.training.size(), 2u);
  EXPECT_EQ(split.left_out, 1);  // the copy of the pair that validates
  EXPECT_EQ(split.shared, 1);
}

TEST(TrainingPairs, AreNamedByAListOrACheckpoint) {
  const ScratchFolder folder;
  write_bytes(folder / "names.txt", "# held out\n s0_to_s1 \n\ns1_to_s0\n");
  std::vector<TrainingPair> pairs = all_pairs(3);
  name_validation_pairs(pairs, folder / "names.txt");
  const TrainingSplit split = split_as_named(pairs);
  EXPECT_EQ(split.validation.size(), 2u);
  EXPECT_EQ(split.training.size(), 8u);
  const TrainingSplit again = split_as_before(pairs, {"s0_to_s2"}, {"s2_to_s0"});
  EXPECT_EQ(again.training.size(), 1u);
  EXPECT_EQ(again.left_out, 10);
  EXPECT_THROW(split_as_before(pairs, {"s0_to_s9"}, {}), InputError);
  write_bytes(folder / "names.txt", "s7_to_s8\n");
  EXPECT_THROW(name_validation_pairs(pairs, folder / "names.txt"), InputError);
}

TEST(LossCurve, IsATableAndAPicture) {
  LossPoint first{10, 0.5, {2.0, 1.25}, {}}, second{20, 1.0, {1.0, 0.625}, {1.5, 0.75}};
  EXPECT_EQ(loss_table({first, second}),
            "step,epoch,training_loss,training_ratio,validation_loss,validation_ratio\n"
            "10,0.5,2,1.25,,\n20,1,1,0.625,1.5,0.75\n");
  for (const std::vector<LossPoint>& curve : {std::vector<LossPoint>{}, {first}, {first, second}}) {
    const std::string picture = draw_loss_curve(curve);
    EXPECT_TRUE(picture.starts_with("<svg ")) << picture;
    EXPECT_TRUE(picture.ends_with("</svg>\n")) << picture;
    EXPECT_EQ(picture.find("nan"), std::string::npos) << picture;
    EXPECT_EQ(picture.find(">-0<"), std::string::npos) << picture;
    EXPECT_EQ(picture.find("best") != std::string::npos, curve.size() == 2) << picture;
  }
}

}  // namespace
}  // namespace cinnabar::registration
