#pragma once

#include "engine/device.hpp"

namespace cinnabar {

/// A CUDA stream. On the CPU a stream is inert, so code that overlaps work needs no special case.
class Stream {
 public:
  explicit Stream(Device device);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  Device device() const { return device_; }
  /// The `cudaStream_t`, or null on the CPU.
  void* handle() const { return handle_; }
  void synchronize() const;

 private:
  Device device_;
  void* handle_ = nullptr;
};

/// The stream that allocations, copies and kernels of this thread use on a device (the default one unless a
/// StreamScope is alive), as a `cudaStream_t`.
void* current_stream(Device device);

/// Makes a stream current for this thread while it lives.
class StreamScope {
 public:
  explicit StreamScope(const Stream& stream);
  ~StreamScope();
  StreamScope(const StreamScope&) = delete;
  StreamScope& operator=(const StreamScope&) = delete;

 private:
  Device device_;
  void* previous_ = nullptr;
};

}  // namespace cinnabar
