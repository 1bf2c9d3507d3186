#include "apps/progress.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace cinnabar::apps {

namespace {

constexpr int kBarWidth = 30;

}  // namespace

Progress::Progress(Verbosity verbosity)
    : verbosity_(verbosity),
      terminal_(isatty(STDERR_FILENO) == 1),
      began_(std::chrono::steady_clock::now()) {}

Progress::~Progress() {
  finish_line();
}

void Progress::finish_line() {
  if (line_open_) std::fputc('\n', stderr);
  line_open_ = false;
}

void Progress::stage(const std::string& name) {
  if (verbosity_ == Verbosity::quiet) return;
  finish_line();
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - began_;
  fmt::print(stderr, "[{:7.1f} s] {}\n", elapsed.count(), name);
}

void Progress::step(const registration::LevelProgress& progress) {
  if (verbosity_ == Verbosity::quiet) return;
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - began_;
  if (progress.level != level_) finish_line();
  const bool new_level = progress.level != level_;
  level_ = progress.level;
  const std::string figures = fmt::format(
      "[{:7.1f} s] level {}/{}  iteration {:3d}/{}  energy {:.6g}", elapsed.count(), progress.level + 1,
      progress.levels, progress.step.iteration, progress.max_iterations, progress.step.value);
  if (!terminal_) {
    if (new_level || verbosity_ == Verbosity::verbose) fmt::print(stderr, "{}\n", figures);
    return;
  }
  const int done =
      progress.max_iterations > 0 ? kBarWidth * progress.step.iteration / progress.max_iterations : kBarWidth;
  const auto filled = static_cast<std::size_t>(std::clamp(done, 0, kBarWidth));
  fmt::print(stderr, "\r{}  [{}{}]", figures, std::string(filled, '#'), std::string(kBarWidth - filled, '.'));
  std::fflush(stderr);
  line_open_ = true;
}

}  // namespace cinnabar::apps
