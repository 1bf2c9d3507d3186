// Files of which no other test can tell what they hold.

#include <gtest/gtest.h>

#include "tests/golden_cases.hpp"

namespace cinnabar::testing {
namespace {

TEST(GoldenFiles, HaveReadableHeaders) {
  const auto paths = golden_files("");
  if (paths.empty()) GTEST_SKIP() << "no golden files found";
  for (const auto& path : paths) EXPECT_TRUE(golden_metadata(path).has_value()) << "damaged: " << path;
}

}  // namespace
}  // namespace cinnabar::testing
