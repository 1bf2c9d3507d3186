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

double Progress::elapsed_seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count();
}

void Progress::draw(const std::string& figures, double share) {
  const int done = static_cast<int>(kBarWidth * share);
  const auto filled = static_cast<std::size_t>(std::clamp(done, 0, kBarWidth));
  fmt::print(stderr, "\r{}  [{}{}]", figures, std::string(filled, '#'), std::string(kBarWidth - filled, '.'));
  std::fflush(stderr);
  line_open_ = true;
}

void Progress::stage(const std::string& name) {
  if (verbosity_ == Verbosity::quiet) return;
  finish_line();
  fmt::print(stderr, "[{:7.1f} s] {}\n", elapsed_seconds(), name);
}

void Progress::step(const registration::LevelProgress& progress) {
  if (verbosity_ == Verbosity::quiet) return;
  const bool new_level = progress.level != level_;
  if (new_level) finish_line();
  level_ = progress.level;
  const std::string figures = fmt::format(
      "[{:7.1f} s] level {}/{}  iteration {:3d}/{}  energy {:.6g}", elapsed_seconds(), progress.level + 1,
      progress.levels, progress.step.iteration, progress.max_iterations, progress.step.value);
  if (terminal_) {
    const int all = progress.max_iterations;
    draw(figures, all > 0 ? static_cast<double>(progress.step.iteration) / all : 1.0);
  } else if (new_level || verbosity_ == Verbosity::verbose) {
    fmt::print(stderr, "{}\n", figures);
  }
}

void Progress::count(const std::string& piece, std::int64_t done, std::int64_t total) {
  if (verbosity_ == Verbosity::quiet || (!terminal_ && done < total)) return;
  const std::string figures = fmt::format("[{:7.1f} s] {} {}/{}", elapsed_seconds(), piece, done, total);
  if (terminal_) {
    draw(figures, static_cast<double>(done) / static_cast<double>(std::max<std::int64_t>(total, 1)));
  } else {
    fmt::print(stderr, "{}\n", figures);
  }
}

}  // namespace cinnabar::apps
