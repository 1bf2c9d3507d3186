// Coordinates to pixels and back: CoordConv solves what plain convolutions do not.

#include "models/coord_task.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <set>

#include "engine/error.hpp"

namespace cinnabar {
namespace {

std::unique_ptr<CoordTraining> trained(const CoordOptions& options, const CoordPlaces& places) {
  auto training = std::make_unique<CoordTraining>(options, places.training);
  while (training->epochs_done() < training->options().epochs) training->epoch();
  return training;
}

TEST(CoordPlaces, AreDividedOnce) {
  for (const CoordSplit split : {CoordSplit::uniform, CoordSplit::quadrant}) {
    const CoordPlaces places = split_places(split);
    EXPECT_EQ(places.training.size(), 2352u);
    EXPECT_EQ(places.test.size(), 784u);
    std::set<std::array<std::int64_t, 2>> all(places.training.begin(), places.training.end());
    all.insert(places.test.begin(), places.test.end());
    EXPECT_EQ(all.size(), 3136u);
    EXPECT_EQ((*all.begin()), (std::array<std::int64_t, 2>{4, 4}));
    EXPECT_EQ((*all.rbegin()), (std::array<std::int64_t, 2>{59, 59}));
  }
  for (const auto& [x, y] : split_places(CoordSplit::quadrant).test) EXPECT_TRUE(x >= 32 && y >= 32);
  EXPECT_EQ(split_places(CoordSplit::uniform, 16, 5, 1).test,
            split_places(CoordSplit::uniform, 16, 5, 1).test);
  EXPECT_NE(split_places(CoordSplit::uniform, 16, 5, 1).test,
            split_places(CoordSplit::uniform, 16, 5, 2).test);
  EXPECT_THROW(split_places(CoordSplit::uniform, 16, 4), Error);
}

TEST(CoordTask, ClassifiesAnUnseenQuadrantByCoordConvOnly) {
  const CoordPlaces places = split_places(CoordSplit::quadrant, 16, 5);
  const CoordOptions options{.side = 16, .epochs = 60, .batch_size = 8};
  CoordOptions plain = options;
  plain.layer = CoordLayer::plain;
  EXPECT_GT(trained(options, places)->score(places.test).right, 0.9);
  const auto by_plain = trained(plain, places);
  EXPECT_GT(by_plain->score(places.training).right, 0.9) << "it has not even learned what it was taught";
  EXPECT_LT(by_plain->score(places.test).right, 0.2);
}

TEST(CoordTask, RegressesAnUnseenQuadrantByCoordConvOnly) {
  const CoordPlaces places = split_places(CoordSplit::quadrant, 16, 5);
  const CoordOptions options{.task = CoordTask::regress, .side = 16, .epochs = 60, .batch_size = 8};
  CoordOptions plain = options;
  plain.layer = CoordLayer::plain;
  EXPECT_LT(trained(options, places)->score(places.test).distance, 1.0);
  const auto by_plain = trained(plain, places);
  EXPECT_LT(by_plain->score(places.training).distance, 0.5) << "it has not even learned what it was taught";
  EXPECT_GT(by_plain->score(places.test).distance, 1.5);
}

TEST(CoordTask, RepeatsItself) {
  const CoordPlaces places = split_places(CoordSplit::uniform, 8, 3);
  const CoordOptions options{.side = 8, .seed = 3, .epochs = 2};
  EXPECT_EQ(trained(options, places)->told(places.test), trained(options, places)->told(places.test));
  CoordOptions odd = options;
  odd.side = 12;
  EXPECT_THROW(CoordNetwork{odd}, Error);
  EXPECT_THROW(CoordTraining(options, {}), Error);
}

}  // namespace
}  // namespace cinnabar
