// The main of every benchmark. Beside Google Benchmark's options it takes
//   --device=cpu|cuda|cuda:N[,...]   where to run (default: cpu, and cuda where there is a GPU)

#include <cstdio>
#include <sstream>
#include <string_view>

#include "bench/ceiling.hpp"
#include "bench/registry.hpp"
#include "engine/error.hpp"

namespace cinnabar::bench {
namespace {

std::vector<Device> take_devices(int& argc, char** argv) {
  constexpr std::string_view kOption = "--device";
  std::string chosen;
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    if (argument == kOption && i + 1 < argc) {
      chosen = argv[++i];
    } else if (argument.starts_with(kOption) && argument.substr(kOption.size()).starts_with('=')) {
      chosen = argument.substr(kOption.size() + 1);
    } else {
      argv[kept++] = argv[i];
    }
  }
  argc = kept;
  std::vector<Device> devices;
  if (chosen.empty()) {
    devices.push_back(Device::cpu());
    if (cuda_status().device_count > 0 && !cuda_is_emulated()) devices.push_back(Device::cuda());
    return devices;
  }
  std::istringstream names(chosen);
  for (std::string name; std::getline(names, name, ',');) {
    devices.push_back(Device::parse(name));
    require_device(devices.back());
  }
  return devices;
}

std::string name_of(Device device) {
  std::ostringstream name;
  name << device;
  return name.str();
}

void register_for(Device device) {
  benchmark::AddCustomContext(name_of(device), device_properties(device).name);
  std::ostringstream ceiling;
  ceiling.precision(4);
  ceiling << 1e-9 * copy_ceiling(device);
  benchmark::AddCustomContext(name_of(device) + " copy GB/s", ceiling.str());
  for (const Entry& entry : entries()) {
    auto* registered = benchmark::RegisterBenchmark(
        (entry.name + "/" + name_of(device)).c_str(),
        [&entry, device](benchmark::State& state) { entry.body(state, device); });
    registered->UseManualTime()->Unit(benchmark::kMillisecond)->MinWarmUpTime(0);
    for (const std::int64_t extent : entry.extents) registered->Arg(extent);
  }
}

}  // namespace
}  // namespace cinnabar::bench

int main(int argc, char** argv) {
  using namespace cinnabar;
  try {
    const auto devices = bench::take_devices(argc, argv);
    // Evicting the caches takes longer than a small op, so the default of 0.5 timed seconds is too long.
    char min_time[] = "--benchmark_min_time=0.1";
    std::vector<char*> arguments{argv, argv + argc};
    arguments.insert(arguments.begin() + 1, min_time);
    arguments.push_back(nullptr);
    int count = argc + 1;
    benchmark::Initialize(&count, arguments.data());
    if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 2;
    for (const Device device : devices) bench::register_for(device);
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
