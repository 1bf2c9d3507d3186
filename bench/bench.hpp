#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/device.hpp"

namespace cinnabar::bench {

/// One benchmark: sets up its tensors on `device` at grid extent state.range(0), then calls `measure`.
using Body = std::function<void(benchmark::State& state, Device device)>;

/// Lists a benchmark; main registers it as NAME/DEVICE/EXTENT for every device that --device chose.
bool add(const std::string& name, Body body, std::vector<std::int64_t> extents);

/// What one run of an op has to move and compute: the bytes that must cross the memory bus at least once, and
/// the floating-point operations (0 where they do not matter).
struct Work {
  double bytes = 0;
  double flops = 0;
};

/// Times `run` on `device`, each iteration alone and with cold caches, and adds the counters `GB/s`,
/// `share of ceiling` (of the copy bandwidth measured in this process) and, with flops, `GFLOP/s`.
/// The first, untimed run warms up allocations and plans.
void measure(benchmark::State& state, Device device, const Work& work, const std::function<void()>& run);

}  // namespace cinnabar::bench

/// Lists the function BODY as a benchmark at the given grid extents: CINNABAR_BENCH(warp_forward, 64, 128).
#define CINNABAR_BENCH(BODY, ...) \
  static const bool BODY##_listed = ::cinnabar::bench::add(#BODY, BODY, {__VA_ARGS__})

/// Lists BODY as a rival of the benchmark OF; tables show both in one row. Its name is "OF.BODY".
#define CINNABAR_RIVAL(OF, BODY, ...) \
  static const bool OF##_##BODY##_listed = ::cinnabar::bench::add(#OF "." #BODY, BODY, {__VA_ARGS__})
