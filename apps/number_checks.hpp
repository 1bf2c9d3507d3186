#pragma once

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <string>

namespace cinnabar::apps {

// Checks of options that take numbers. CLI11's own let NaN and infinity pass.

inline CLI::Validator number_in(double least, double most, const std::string& name) {
  return CLI::Validator(
      [least, most](const std::string& text) {
        double value = 0.0;
        if (CLI::detail::lexical_cast(text, value) && value >= least && value <= most) return std::string();
        return fmt::format("'{}' is not a number from {} to {}", text, least, most);
      },
      name);
}
inline CLI::Validator number_in(double least, double most) {
  return number_in(least, most, fmt::format("FLOAT in [{} - {}]", least, most));
}

inline const CLI::Validator kPositive = number_in(1e-9, 1e9, "POSITIVE");
inline const CLI::Validator kNonNegative = number_in(0.0, 1e9, "NONNEGATIVE");

}  // namespace cinnabar::apps
