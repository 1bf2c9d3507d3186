#pragma once

#include "bench/bench.hpp"

namespace cinnabar::bench {

/// What `add` collected, in order of definition; main turns it into Google Benchmark's registrations.
struct Entry {
  std::string name;
  Body body;
  std::vector<std::int64_t> extents;
};
std::vector<Entry>& entries();

}  // namespace cinnabar::bench
