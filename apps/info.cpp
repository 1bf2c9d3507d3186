#include <omp.h>

#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "apps/commands.hpp"
#include "apps/device_choice.hpp"
#include "engine/device.hpp"
#include "engine/error.hpp"

namespace cinnabar::apps {

namespace {

using Json = nlohmann::ordered_json;

const char* cuda_in_build() {
#if defined(CINNABAR_EMULATED)
  return "emulated on the host";
#elif defined(CINNABAR_HAS_CUDA)
  return "yes";
#else
  return "no";
#endif
}

std::string processor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

Json gather() {
  Json info;
  info["version"] = CINNABAR_VERSION;
  info["compiler"] = __VERSION__;
#ifdef NDEBUG
  info["build"] = "optimised";
#else
  info["build"] = "with assertions";
#endif
  info["cuda"] = cuda_in_build();
#ifdef __AVX512F__
  info["vector_width"] = "AVX-512";
#elif defined(__AVX2__)
  info["vector_width"] = "AVX2";
#else
  info["vector_width"] = "baseline";
#endif
  info["processor"] = processor();
  info["threads"] = omp_get_max_threads();
  info["gpus"] = Json::array();
  const CudaStatus& status = cuda_status();
  for (int index = 0; index < status.device_count; ++index) {
    const DeviceProperties properties = device_properties(Device::cuda(index));
    info["gpus"].push_back({{"device", "cuda:" + std::to_string(index)},
                            {"name", properties.name},
                            {"compute_capability", properties.compute_capability},
                            {"total_bytes", properties.total_bytes},
                            {"free_bytes", properties.free_bytes}});
  }
  const DeviceChoice choice = choose_device("auto");
  info["auto_device"] = detail::concat(choice.device);
  info["auto_reason"] = choice.reason;
  return info;
}

void print_plain(const Json& info) {
  const auto text = [&](const char* key) { return info[key].get<std::string>(); };
  std::printf("cinnabar %s\n", text("version").c_str());
  std::printf("  compiler   %s, %s, %s\n", text("compiler").c_str(), text("build").c_str(),
              text("vector_width").c_str());
  std::printf("  CUDA       %s\n", text("cuda").c_str());
  std::printf("  processor  %s, %d threads\n", text("processor").c_str(), info["threads"].get<int>());
  for (const Json& gpu : info["gpus"]) {
    const int capability = gpu["compute_capability"].get<int>();
    std::printf("  %-10s %s, compute capability %d.%d, %.1f of %.1f GiB free\n",
                gpu["device"].get<std::string>().c_str(), gpu["name"].get<std::string>().c_str(),
                capability / 10, capability % 10, gpu["free_bytes"].get<double>() / 1073741824.0,
                gpu["total_bytes"].get<double>() / 1073741824.0);
  }
  std::printf("  --device auto chooses %s: %s\n", text("auto_device").c_str(), text("auto_reason").c_str());
}

}  // namespace

void add_info(CLI::App& app) {
  auto json = std::make_shared<bool>(false);
  CLI::App* command =
      app.add_subcommand("info", "Show version, build and devices, and which device auto chooses");
  command->add_flag("--json", *json, "Print JSON");
  command->callback([json] {
    const Json info = gather();
    if (*json) {
      std::printf("%s\n", info.dump(2).c_str());
    } else {
      print_plain(info);
    }
  });
}

}  // namespace cinnabar::apps
