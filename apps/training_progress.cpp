#include "apps/training_progress.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <utility>

namespace cinnabar::apps {

namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr Seconds kTerminalInterval{0.5};
constexpr Seconds kLogInterval{10.0};

std::string duration_text(double seconds) {
  const auto minutes = static_cast<long long>(std::ceil(seconds / 60.0));
  if (minutes < 2) return fmt::format("{:.0f} s", std::ceil(seconds));
  return minutes < 120 ? fmt::format("{} min", minutes)
                       : fmt::format("{} h {:02} min", minutes / 60, minutes % 60);
}

}  // namespace

TrainingProgress::TrainingProgress(Training& training, bool quiet, std::string piece)
    : training_(training),
      quiet_(quiet),
      piece_(std::move(piece)),
      terminal_(isatty(STDERR_FILENO) == 1),
      first_step_(training.step()),
      began_(Clock::now()),
      shown_(began_) {}

TrainingProgress::~TrainingProgress() {
  finish_line();
}

void TrainingProgress::finish_line() {
  if (line_open_) std::fputc('\n', stderr);
  line_open_ = false;
}

std::string TrainingProgress::figures() {
  TrainingLoss loss = training_.running_loss();
  if (std::isnan(loss.mean) && !training_.curve().empty()) loss = training_.curve().back().training;
  const std::int64_t step = training_.step(), total = training_.total_steps();
  const double seconds = Seconds(Clock::now() - began_).count();
  const double speed = static_cast<double>(step - first_step_) / seconds;
  return fmt::format("epoch {:.2f}/{:.6g}  batch {}/{}  loss {:.4g} ({:.3f} of zero)  {:.3g} {}/s  {} to go",
                     training_.epoch_of(step), training_.epochs(), step, total, loss.mean, loss.ratio,
                     speed * static_cast<double>(training_.batch_size()), piece_,
                     duration_text(static_cast<double>(total - step) / speed));
}

void TrainingProgress::advanced() {
  if (quiet_ || Clock::now() - shown_ < (terminal_ ? kTerminalInterval : kLogInterval)) return;
  shown_ = Clock::now();
  if (terminal_) {
    fmt::print(stderr, "\r{}\033[K", figures());
    std::fflush(stderr);
    line_open_ = true;
  } else {
    fmt::print(stderr, "{}\n", figures());
  }
}

void TrainingProgress::validated(const LossPoint& point) {
  if (quiet_) return;
  finish_line();
  const LossPoint& best = training_.best();
  fmt::print(stderr, "validation after epoch {:.2f}: loss {:.4g}, {:.4f} of predicting zero{}\n", point.epoch,
             point.validation.mean, point.validation.ratio,
             best.step == point.step
                 ? ", the best so far"
                 : fmt::format(" (best {:.4f} after epoch {:.2f})", best.validation.ratio, best.epoch));
}

}  // namespace cinnabar::apps
