#include "kernels/parallel.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <stdexcept>

namespace cinnabar {
namespace {

TEST(Parallel, CoversTheRangeOnce) {
  std::vector<int> visits(1000, 0);
  parallel_for(1000, 7, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) ++visits[static_cast<std::size_t>(i)];
  });
  EXPECT_EQ(visits, std::vector<int>(1000, 1));
  parallel_for(0, 7, [&](std::int64_t, std::int64_t) { ADD_FAILURE() << "called for nothing"; });
}

TEST(Parallel, ExceptionsReachTheCaller) {
  std::atomic<int> chunks = 0;
  const auto body = [&](std::int64_t first, std::int64_t) {
    ++chunks;
    if (first % 20 == 0) throw std::runtime_error("no");
  };
  EXPECT_THROW(parallel_for(100, 10, body), std::runtime_error);
  EXPECT_EQ(chunks, 10);
  EXPECT_THROW(parallel_for(5, 10, body), std::runtime_error);
}

TEST(Parallel, SumsAddChunksInOrder) {
  const auto part = [](std::int64_t first, std::int64_t last) {
    double sum = 0.0;
    for (std::int64_t i = first; i < last; ++i) sum += 1.0 / static_cast<double>(1 + i);
    return sum;
  };
  double expected = 0.0;
  for (std::int64_t first = 0; first < 1000; first += 64) {
    expected += part(first, std::min<std::int64_t>(first + 64, 1000));
  }
  EXPECT_EQ(parallel_sum(1000, 64, part), expected);
}

}  // namespace
}  // namespace cinnabar
