#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/child_process.hpp"
#include "tests/scratch_folder.hpp"

namespace cinnabar::testing {

/// Runs `cinnabar train KIND` with some options and then others.
class TrainSmall : public ::testing::Test {
 protected:
  CommandResult train(const std::vector<std::string>& options) const {
    std::vector<std::string> words{kProgram, "train"};
    words.insert(words.end(), usual_.begin(), usual_.end());
    words.insert(words.end(), options.begin(), options.end());
    return run_command(words);
  }
  /// One line that says why, and nothing written.
  void expect_refused(const std::vector<std::string>& options, int status, const std::string& reason) const {
    const std::ptrdiff_t files = folder_.count();
    const CommandResult result = train(options);
    EXPECT_EQ(result.status, status) << result.output;
    EXPECT_NE(result.output.find(reason), std::string::npos) << result.output << " should say: " << reason;
    EXPECT_EQ(result.output.find('\n'), result.output.size() - 1) << result.output;
    EXPECT_EQ(folder_.count(), files);
  }
  std::string at(const std::string& name) const { return (folder_ / name).string(); }

  ScratchFolder folder_;
  std::vector<std::string> usual_;
};

}  // namespace cinnabar::testing
