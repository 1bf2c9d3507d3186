#pragma once

#include <chrono>
#include <string>

#include "models/training.hpp"

namespace cinnabar::apps {

/// A training's progress on stderr: a line that redraws itself on a terminal, a new line every ten seconds
/// elsewhere.
class TrainingProgress {
 public:
  /// Speed counts from now on; `training` must stay.
  TrainingProgress(Training& training, bool quiet, std::string piece = "patches");
  ~TrainingProgress();

  void advanced();
  void validated(const LossPoint& point);

 private:
  std::string figures();
  void finish_line();

  Training& training_;
  bool quiet_;
  std::string piece_;  ///< what a batch is made of
  bool terminal_;
  bool line_open_ = false;
  std::int64_t first_step_;
  std::chrono::steady_clock::time_point began_, shown_;
};

}  // namespace cinnabar::apps
