#pragma once

#include <cuda_runtime_api.h>

#include "engine/device.hpp"
#include "engine/error.hpp"

namespace cinnabar {

/// Throws Error naming the call and CUDA's own description unless the status is success.
inline void check_cuda(cudaError_t status, const char* call,
                       std::source_location where = std::source_location::current()) {
  if (status != cudaSuccess) [[unlikely]] {
    fail(call, detail::concat(cudaGetErrorName(status), ": ", cudaGetErrorString(status)), where);
  }
}

/// Makes a device current for this thread while it lives.
class DeviceScope {
 public:
  explicit DeviceScope(Device device) {
    check_cuda(cudaGetDevice(&previous_), "cudaGetDevice");
    if (previous_ != device.index) check_cuda(cudaSetDevice(device.index), "cudaSetDevice");
    current_ = device.index;
  }
  ~DeviceScope() {
    if (previous_ != current_) cudaSetDevice(previous_);
  }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int previous_ = 0;
  int current_ = 0;
};

}  // namespace cinnabar

#define CINNABAR_CUDA(call) ::cinnabar::check_cuda((call), #call)
