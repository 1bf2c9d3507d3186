#include "data/patch_sampler.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "tests/tensors.hpp"
#include "tests/threads.hpp"

namespace cinnabar::testing {
namespace {

using Start = std::vector<std::int32_t>;

VolumeSet two_sizes() {
  return VolumeSet({Batch{{"image", random_tensor({2, 1, 3, 4, 5}, 1)}},
                    Batch{{"image", random_tensor({1, 1, 2, 6, 3}, 2)}}});
}

/// All rows of the batches first .. last - 1.
std::vector<Start> rows_of(const PatchSampler& sampler, std::int64_t first, std::int64_t last) {
  std::vector<Start> rows;
  for (std::int64_t batch = first; batch < last; ++batch) {
    const std::vector<std::int32_t> table = sampler.starts(batch).to_vector<std::int32_t>();
    for (std::size_t i = 0; i < table.size(); i += 4) rows.emplace_back(&table[i], &table[i] + 4);
  }
  return rows;
}

Tensor list_of(std::int64_t count) {
  std::vector<std::int32_t> rows;
  for (std::int32_t n = 0; n < count; ++n) rows.insert(rows.end(), {n % 3, n, 2 * n, 3 * n});
  return Tensor::from(rows, {count, 4});
}

TEST(PatchSampler, DrawsEveryPlaceWhereThePatchLiesInside) {
  const PatchSampler sampler(two_sizes(), {.patch = {2, 3, 3}, .batch_size = 97, .seed = 4});
  EXPECT_EQ(sampler.places(), 2 * (2 * 2 * 3) + 1 * 4 * 1);
  std::map<Start, int> seen;
  for (const Start& start : rows_of(sampler, 0, 40)) ++seen[start];
  ASSERT_EQ(seen.size(), 28u);
  for (const auto& [start, times] : seen) {
    const std::int32_t limit[3][3] = {{1, 1, 2}, {1, 1, 2}, {0, 3, 0}};
    for (std::size_t axis = 0; axis < 3; ++axis) {
      EXPECT_GE(start[axis + 1], 0);
      EXPECT_LE(start[axis + 1], limit[start[0]][axis]);
    }
    EXPECT_NEAR(times, 3880.0 / 28, 5 * std::sqrt(3880.0 / 28));
  }
}

TEST(PatchSampler, PatchesLargerThanAVolumeStartAtItsOrigin) {
  const PatchSampler sampler(two_sizes(), {.patch = {9, 9, 9}, .batch_size = 3, .replacement = false});
  EXPECT_EQ(sampler.places(), 3);
  const auto rows = rows_of(sampler, 0, 1);
  EXPECT_EQ(std::set<Start>(rows.begin(), rows.end()),
            (std::set<Start>{{0, 0, 0, 0}, {1, 0, 0, 0}, {2, 0, 0, 0}}));
  EXPECT_EQ(sampler(0).at("image").shape(), (Shape{3, 1, 9, 9, 9}));
}

TEST(PatchSampler, WithoutReplacementEveryPlaceComesOnceInEachEpoch) {
  // Batches of 4 of 10 places straddle the epochs: 5 batches hold 2 of them.
  const PatchSampler sampler(two_sizes(), list_of(10),
                             {.patch = {1, 1, 1}, .batch_size = 4, .replacement = false, .seed = 1});
  EXPECT_EQ(sampler.batches_per_epoch(), 3);
  const std::vector<Start> rows = rows_of(sampler, 0, 10);
  ASSERT_EQ(rows.size(), 40u);
  std::set<std::vector<Start>> orders;
  for (auto epoch = rows.begin(); epoch != rows.end(); epoch += 10) {
    EXPECT_EQ(std::set<Start>(epoch, epoch + 10).size(), 10u);
    orders.insert(std::vector<Start>(epoch, epoch + 10));
  }
  EXPECT_EQ(orders.size(), 4u) << "epochs share their order";
}

TEST(PatchSampler, WithReplacementTheListIsDrawnEvenly) {
  const PatchSampler sampler(two_sizes(), list_of(7), {.patch = {1, 1, 1}, .batch_size = 100, .seed = 8});
  std::map<Start, int> seen;
  for (const Start& start : rows_of(sampler, 0, 70)) ++seen[start];
  ASSERT_EQ(seen.size(), 7u);
  for (const auto& [start, times] : seen) EXPECT_NEAR(times, 1000, 5 * std::sqrt(1000.0));
}

TEST(PatchSampler, ABatchIsAFunctionOfSeedAndNumber) {
  for (const bool replacement : {false, true}) {
    const auto sampler = [&](std::uint64_t seed, std::int64_t size = 6) {
      return PatchSampler(two_sizes(), {{2, 2, 2}, size, replacement, seed});
    };
    const PatchSampler one = sampler(3);
    const auto first = one(5);
    one(2);
    EXPECT_TRUE(same_values(one(5).at("image"), first.at("image")));
    EXPECT_TRUE(same_values(sampler(3)(5).at("image"), first.at("image")));
    EXPECT_TRUE(same_values(on_threads(3, [&] { return sampler(3)(5); }).at("image"), first.at("image")));
    EXPECT_NE(rows_of(sampler(4), 5, 6), rows_of(one, 5, 6));
    EXPECT_NE(rows_of(one, 4, 5), rows_of(one, 5, 6));
    EXPECT_EQ(rows_of(sampler(3, 12), 1, 3), rows_of(one, 2, 6)) << "the size of the batches matters";
  }
}

TEST(PatchSampler, RefusesMisfits) {
  EXPECT_THROW(PatchSampler(two_sizes(), {.patch = {2, 2}}), Error);
  EXPECT_THROW(PatchSampler(two_sizes(), {.patch = {2, 0, 2}}), Error);
  EXPECT_THROW(PatchSampler(two_sizes(), {.batch_size = 0}), Error);
  EXPECT_THROW(PatchSampler(two_sizes(), Tensor(), {}), Error);
  EXPECT_THROW(PatchSampler(two_sizes(), Tensor::empty({0, 4}, DType::i32), {}), Error);
  EXPECT_THROW(PatchSampler(two_sizes(), list_of(3).to(DType::i64), {}), Error);
  EXPECT_THROW(PatchSampler(two_sizes(), Tensor::from<std::int32_t>({3, 0, 0, 0}, {1, 4}), {}), Error);
  EXPECT_THROW(PatchSampler(two_sizes(), {}).starts(-1), Error);
}

}  // namespace
}  // namespace cinnabar::testing
