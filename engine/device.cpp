#include "engine/device.hpp"

#include <unistd.h>

#include <charconv>
#include <fstream>
#include <ostream>

#include "engine/error.hpp"

#ifdef CINNABAR_HAS_CUDA
#include "engine/cuda_check.hpp"
#include "engine/stream.hpp"
#endif

namespace cinnabar {

Device Device::parse(std::string_view text) {
  if (text == "cpu") return cpu();
  if (text == "cuda") return cuda(0);
  constexpr std::string_view kPrefix = "cuda:";
  if (text.starts_with(kPrefix)) {
    const std::string_view digits = text.substr(kPrefix.size());
    int index = 0;
    const auto [end, status] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    if (status == std::errc{} && end == digits.data() + digits.size() && index >= 0) return cuda(index);
  }
  fail_input("device '", text, "' is not known: use cpu, cuda or cuda:N");
}

std::ostream& operator<<(std::ostream& out, Device device) {
  return device.is_cpu() ? out << "cpu" : out << "cuda:" << device.index;
}

bool cuda_is_emulated() {
#ifdef CINNABAR_EMULATED
  return true;
#else
  return false;
#endif
}

#ifdef CINNABAR_HAS_CUDA

const CudaStatus& cuda_status() {
  static const CudaStatus status = [] {
    CudaStatus result;
    const cudaError_t error = cudaGetDeviceCount(&result.device_count);
    if (error != cudaSuccess) {
      result.device_count = 0;
      result.reason = detail::concat("no usable GPU: ", cudaGetErrorString(error));
    } else if (result.device_count == 0) {
      result.reason = "no GPU in this machine";
    } else {
      result.reason = detail::concat(result.device_count, " CUDA device(s)",
                                     cuda_is_emulated() ? ", emulated on the host" : "");
    }
    return result;
  }();
  return status;
}

void synchronize(Device device) {
  if (device.is_cpu()) return;
  const DeviceScope scope(device);
  CINNABAR_CUDA(cudaDeviceSynchronize());
}

#else

const CudaStatus& cuda_status() {
  static const CudaStatus status{0, "built without CUDA"};
  return status;
}

void synchronize(Device device) {
  require_device(device);
}

#endif

void require_device(Device device) {
  if (device.is_cpu()) return;
  const CudaStatus& status = cuda_status();
  if (device.index >= status.device_count) {
    fail_input("device ", device, " is not available (", status.reason, "): use --device cpu");
  }
}

namespace {

/// As Linux knows it.
std::string cpu_name() {
  static const std::string name = [] {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
      const std::size_t colon = line.find(": ");
      if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
    }
    return std::string("CPU");
  }();
  return name;
}

}  // namespace

DeviceProperties device_properties(Device device) {
  require_device(device);
  DeviceProperties result;
  if (device.is_cpu()) {
    const auto page_bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    result.name = cpu_name();
    result.total_bytes = static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * page_bytes;
    result.free_bytes = static_cast<std::size_t>(sysconf(_SC_AVPHYS_PAGES)) * page_bytes;
    return result;
  }
#ifdef CINNABAR_HAS_CUDA
  const DeviceScope scope(device);
  cudaDeviceProp properties{};
  CINNABAR_CUDA(cudaGetDeviceProperties(&properties, device.index));
  CINNABAR_CUDA(cudaMemGetInfo(&result.free_bytes, &result.total_bytes));
  result.name = properties.name;
  result.compute_capability = 10 * properties.major + properties.minor;
#endif
  return result;
}

}  // namespace cinnabar
