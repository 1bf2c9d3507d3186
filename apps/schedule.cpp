#include "apps/schedule.hpp"

#include <cmath>
#include <sstream>

#include "engine/error.hpp"

namespace cinnabar::apps {

using registration::Level;

namespace {

/// "100x60x30" as numbers from `least` to `most`.
std::vector<double> parse_schedule(const std::string& option, const std::string& text, double least,
                                   double most) {
  std::vector<double> values;
  std::stringstream parts(text);
  for (std::string part; std::getline(parts, part, 'x');) {
    std::size_t used = 0;
    double value = 0.0;
    try {
      value = std::stod(part, &used);
    } catch (const std::exception&) {
      used = 0;
    }
    if (used == 0 || used != part.size() || !(value >= least && value <= most)) {
      fail_input(option, " '", text, "' is not a schedule: use numbers from ", least, " to ", most,
                 " joined by x, such as 100x60x30");
    }
    values.push_back(value);
  }
  if (values.empty()) fail_input(option, " is empty: use numbers joined by x, such as 100x60x30");
  return values;
}

}  // namespace

std::vector<Level> parse_levels(const ScheduleText& text) {
  constexpr double kMostIterations = 1e6;
  constexpr double kLargestFactor = 128.0;
  const std::vector<double> iterations =
      parse_schedule("--iterations", text.iterations, 0.0, kMostIterations);
  std::vector<double> shrink, smoothing;
  if (!text.shrink.empty()) shrink = parse_schedule("--shrink", text.shrink, 1.0, kLargestFactor);
  if (!text.smoothing.empty()) smoothing = parse_schedule("--smoothing", text.smoothing, 0.0, 100.0);
  if ((!shrink.empty() && shrink.size() != iterations.size()) ||
      (!smoothing.empty() && smoothing.size() != iterations.size())) {
    fail_input("--iterations, --shrink and --smoothing must name the same number of levels");
  }
  if (shrink.empty() && std::exp2(static_cast<double>(iterations.size()) - 1.0) > kLargestFactor) {
    fail_input("--iterations '", text.iterations, "' has more than 8 levels, each of half the grid's size");
  }
  std::vector<Level> levels;
  for (std::size_t i = 0; i < iterations.size(); ++i) {
    const double factor =
        shrink.empty() ? std::ldexp(1.0, static_cast<int>(iterations.size() - 1 - i)) : shrink[i];
    const double sigma = smoothing.empty() ? (factor > 1.0 ? 0.45 * factor : 0.0) : smoothing[i];
    if (iterations[i] != std::trunc(iterations[i])) {
      fail_input("--iterations '", text.iterations, "' are not whole numbers");
    }
    levels.push_back({factor, sigma, static_cast<int>(iterations[i])});
  }
  return levels;
}

}  // namespace cinnabar::apps
