#pragma once

#include <chrono>
#include <string>

#include "models/quicksilver_training.hpp"

namespace cinnabar::apps {

/// A training's progress on stderr: a line that redraws itself on a terminal, a new line every ten seconds
/// elsewhere.
class TrainingProgress {
 public:
  /// Speed counts from now on; `training` must stay.
  TrainingProgress(QuicksilverTraining& training, bool quiet);
  ~TrainingProgress();

  void advanced();
  void validated(const LossPoint& point);

 private:
  std::string figures();
  void finish_line();

  QuicksilverTraining& training_;
  bool quiet_;
  bool terminal_;
  bool line_open_ = false;
  std::int64_t first_step_;
  std::chrono::steady_clock::time_point began_, shown_;
};

}  // namespace cinnabar::apps
