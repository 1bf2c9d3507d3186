#include "engine/block_cache.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <limits>
#include <thread>
#include <vector>

namespace cinnabar {
namespace {

constexpr std::size_t kMebi = std::size_t{1} << 20;

class BlockCacheTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!BlockCache::kKeeps) GTEST_SKIP() << "nothing is kept under a sanitizer";
  }
  BlockCache cache_;
};

TEST_F(BlockCacheTest, ALargeBlockComesBack) {
  void* const first = cache_.take(5 * kMebi);
  std::memset(first, 1, 5 * kMebi);
  cache_.give(first, 5 * kMebi);
  EXPECT_EQ(cache_.kept_bytes(), 5 * kMebi);
  void* const again = cache_.take(5 * kMebi - 100);
  EXPECT_EQ(again, first);
  EXPECT_EQ(cache_.kept_bytes(), 0u);
  cache_.give(again, 5 * kMebi - 100);
}

TEST_F(BlockCacheTest, ABlockOfAnotherSizeDoesNot) {
  void* const first = cache_.take(5 * kMebi);
  cache_.give(first, 5 * kMebi);
  void* const smaller = cache_.take(4 * kMebi);
  EXPECT_NE(smaller, first);
  cache_.give(smaller, 4 * kMebi);
}

TEST_F(BlockCacheTest, SmallBlocksAreNotKept) {
  cache_.give(cache_.take(BlockCache::kSmallest / 2), BlockCache::kSmallest / 2);
  EXPECT_EQ(cache_.kept_bytes(), 0u);
}

TEST_F(BlockCacheTest, KeepsNoMoreThanWasOnceInUse) {
  void* const first = cache_.take(8 * kMebi);
  void* const second = cache_.take(4 * kMebi);
  cache_.give(first, 8 * kMebi);
  cache_.give(second, 4 * kMebi);
  EXPECT_EQ(cache_.kept_bytes(), 12 * kMebi);
  void* const third = cache_.take(6 * kMebi);  // the most was 12: the oldest goes
  EXPECT_EQ(cache_.kept_bytes(), 4 * kMebi);
  void* const fourth = cache_.take(16 * kMebi);
  EXPECT_EQ(cache_.kept_bytes(), 0u);
  cache_.give(third, 6 * kMebi);
  cache_.give(fourth, 16 * kMebi);
  EXPECT_EQ(cache_.kept_bytes(), 22 * kMebi);
  cache_.release();
  EXPECT_EQ(cache_.kept_bytes(), 0u);
}

TEST_F(BlockCacheTest, MakesRoomWhereMemoryIsShort) {
  void* const first = cache_.take(8 * kMebi);
  cache_.give(first, 8 * kMebi);
  EXPECT_EQ(cache_.take(std::numeric_limits<std::size_t>::max() / 4), nullptr);
  EXPECT_EQ(cache_.kept_bytes(), 0u);
  EXPECT_EQ(cache_.take(std::numeric_limits<std::size_t>::max()), nullptr);
  // What could not be had does not count as once in use.
  void* const second = cache_.take(8 * kMebi);
  cache_.give(second, 8 * kMebi);
  void* const third = cache_.take(4 * kMebi);
  EXPECT_EQ(cache_.kept_bytes(), 0u);
  cache_.give(third, 4 * kMebi);
}

TEST_F(BlockCacheTest, BlocksAreAligned) {
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, kMebi + 1, 4 * kMebi, 33 * kMebi + 5}) {
    void* const block = cache_.take(bytes);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block) % 64, 0u) << bytes;
    cache_.give(block, bytes);
  }
}

TEST_F(BlockCacheTest, ThreadsNeverShareABlock) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < 200; ++i) {
        const std::size_t bytes = kMebi * static_cast<std::size_t>(1 + (i + t) % 3);
        auto* const block = static_cast<int*>(cache_.take(bytes));
        block[0] = t;
        block[1000] = i;
        std::this_thread::yield();
        EXPECT_EQ(block[0], t);
        EXPECT_EQ(block[1000], i);
        cache_.give(block, bytes);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace cinnabar
