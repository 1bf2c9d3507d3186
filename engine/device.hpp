#pragma once

#include <compare>
#include <iosfwd>
#include <string>
#include <string_view>

namespace cinnabar {

enum class DeviceType { cpu, cuda };

/// Where a tensor lives and an op runs: `cpu` or `cuda:N`.
struct Device {
  DeviceType type = DeviceType::cpu;
  int index = 0;

  static Device cpu() { return {}; }
  static Device cuda(int index = 0) { return {DeviceType::cuda, index}; }
  /// Reads "cpu", "cuda" or "cuda:N". Throws InputError on anything else.
  static Device parse(std::string_view text);

  bool is_cpu() const { return type == DeviceType::cpu; }
  bool is_cuda() const { return type == DeviceType::cuda; }
  friend auto operator<=>(const Device&, const Device&) = default;
};

std::ostream& operator<<(std::ostream& out, Device device);

/// What a build and a machine offer: number of usable CUDA devices (0 without CUDA in the build, without a
/// driver, or without a GPU), and one line that says why.
struct CudaStatus {
  int device_count = 0;
  std::string reason;
};
const CudaStatus& cuda_status();

/// True in builds whose `cuda` device is the host emulator of kernels/emulation.
bool cuda_is_emulated();

/// Name and memory of one device, for reports. `free_bytes` is what an allocation could still get.
struct DeviceProperties {
  std::string name;
  std::size_t total_bytes = 0;
  std::size_t free_bytes = 0;
  int compute_capability = 0;  ///< 10 * major + minor; 0 on the CPU
};
DeviceProperties device_properties(Device device);

/// Throws unless the device exists; the message says why it does not.
void require_device(Device device);

/// Waits until all work queued on the device is done. No effect on the CPU.
void synchronize(Device device);

}  // namespace cinnabar
