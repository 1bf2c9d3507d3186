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
#include "models/quicksilver_file.hpp"
#include "models/voxelmorph_file.hpp"

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

Json gather_voxelmorph(const std::string& file) {
  const auto [network, description] = load_voxelmorph(file);
  const VoxelmorphOptions& options = description.network;
  return {{"file", file},
          {"role", "voxelmorph"},
          {"features", options.features},
          {"weights", network->parameter_count()},
          {"levels", options.levels},
          {"convolutions", options.convolutions},
          {"half_resolution", options.half_resolution},
          {"squarings", options.squarings},
          {"symmetric", options.symmetric},
          {"similarity", name_of(description.loss.similarity)},
          {"lncc_radius", description.loss.lncc_radius},
          {"smoothness", description.loss.smoothness},
          {"spacing_mm", description.spacing_mm},
          {"head_voxels", description.head_voxels},
          {"notes", description.notes}};
}

Json gather_network(const std::string& file) {
  if (is_voxelmorph_file(file)) return gather_voxelmorph(file);
  const auto [network, description] = load_quicksilver(file);
  const QuicksilverOptions& options = description.network;
  Json info;
  info["file"] = file;
  info["role"] = name_of(description.role);
  info["features"] = options.features;
  info["weights"] = network->parameter_count();
  info["patch"] = {options.patch[0], options.patch[1], options.patch[2]};
  info["dropout"] = options.dropout;
  info["momenta"] = to_json(description.momenta);
  info["notes"] = description.notes;
  return info;
}

void print_notes(const Json& info) {
  for (const auto& [key, note] : info["notes"].items()) {
    std::printf("  %s: %s\n", key.c_str(), note.get<std::string>().c_str());
  }
}

void print_voxelmorph(const Json& info) {
  std::printf("%s\n  network of VoxelMorph: %lld features, %lld weights\n",
              info["file"].get<std::string>().c_str(), info["features"].get<long long>(),
              info["weights"].get<long long>());
  for (const auto& [key, value] : info.items()) {
    if (key == "file" || key == "role" || key == "features" || key == "weights" || key == "notes") continue;
    std::printf("  %-20s %s\n", key.c_str(), value.dump().c_str());
  }
  print_notes(info);
}

void print_network(const Json& info) {
  if (info["role"] == "voxelmorph") return print_voxelmorph(info);
  std::printf("%s\n  %s network of Quicksilver: %lld features, %lld weights, patches %s, dropout %g\n",
              info["file"].get<std::string>().c_str(), info["role"].get<std::string>().c_str(),
              info["features"].get<long long>(), info["weights"].get<long long>(),
              info["patch"].dump().c_str(), info["dropout"].get<double>());
  for (const auto& [key, value] : info["momenta"].items()) {
    std::printf("  %-20s %s\n", key.c_str(), value.dump().c_str());
  }
  print_notes(info);
}

}  // namespace

void add_info(CLI::App& app) {
  auto json = std::make_shared<bool>(false);
  auto network = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand(
      "info", "Show version, build and devices, and which device auto chooses; or what a network file holds");
  command->add_option("network", *network, "Network to describe instead: .safetensors or .pth.tar");
  command->add_flag("--json", *json, "Print JSON");
  command->callback([json, network] {
    const Json info = network->empty() ? gather() : gather_network(*network);
    if (*json) {
      std::printf("%s\n", info.dump(2).c_str());
    } else if (network->empty()) {
      print_plain(info);
    } else {
      print_network(info);
    }
  });
}

}  // namespace cinnabar::apps
