#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "registration/multiresolution.hpp"

namespace cinnabar::apps {

enum class Verbosity { quiet, normal, verbose };

/// Progress on stderr: a bar that redraws itself on a terminal, one line per level elsewhere.
class Progress {
 public:
  explicit Progress(Verbosity verbosity);
  ~Progress();

  void stage(const std::string& name);
  void step(const registration::LevelProgress& progress);
  /// `done` of `total` equal pieces of the present stage.
  void count(const std::string& piece, std::int64_t done, std::int64_t total);

 private:
  double elapsed_seconds() const;
  /// Draws `figures` with a bar over the line before, on a terminal.
  void draw(const std::string& figures, double share);
  void finish_line();

  Verbosity verbosity_;
  bool terminal_ = false;
  bool line_open_ = false;
  int level_ = -1;
  std::chrono::steady_clock::time_point began_;
};

}  // namespace cinnabar::apps
