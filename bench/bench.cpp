#include "bench/bench.hpp"

#include "bench/ceiling.hpp"
#include "bench/registry.hpp"

namespace cinnabar::bench {

std::vector<Entry>& entries() {
  static std::vector<Entry> list;
  return list;
}

bool add(const std::string& name, Body body, std::vector<std::int64_t> extents) {
  entries().push_back({name, std::move(body), std::move(extents)});
  return true;
}

void measure(benchmark::State& state, Device device, const Work& work, const std::function<void()>& run) {
  run();
  double seconds = 0;
  for (auto _ : state) {
    evict_caches(device);
    const double elapsed = seconds_of(device, run);
    state.SetIterationTime(elapsed);
    seconds += elapsed;
  }
  const double per_second = static_cast<double>(state.iterations()) / seconds;
  if (work.bytes > 0) {
    const double bandwidth = work.bytes * per_second;
    state.counters["GB/s"] = 1e-9 * bandwidth;
    state.counters["share of ceiling"] = bandwidth / copy_ceiling(device);
  }
  if (work.flops > 0) state.counters["GFLOP/s"] = 1e-9 * work.flops * per_second;
}

}  // namespace cinnabar::bench
