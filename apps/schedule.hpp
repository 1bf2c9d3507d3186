#pragma once

#include <string>
#include <vector>

#include "registration/multiresolution.hpp"

namespace cinnabar::apps {

/// Levels as typed, coarse to fine, numbers joined by x: "100x60x30". Empty shrink factors are halved from
/// level to level and end at 1, empty smoothing is 0.45 times the shrink factor.
struct ScheduleText {
  std::string iterations;
  std::string shrink;
  std::string smoothing;
};

/// Throws InputError naming the option that is not a schedule or has another number of levels.
std::vector<registration::Level> parse_levels(const ScheduleText& text);

}  // namespace cinnabar::apps
