#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "engine/device.hpp"

namespace cinnabar {

/// A block of memory on one device, given back with its last owner. CPU blocks are 64-byte aligned, and large
/// ones are kept for the next (engine/block_cache.hpp); CUDA blocks come from the device's stream-ordered
/// pool on the current stream.
class Storage {
 public:
  Storage(std::size_t bytes, Device device);
  /// CPU memory that belongs to `owner`, which the block keeps alive; not counted in memory_use.
  Storage(void* data, std::size_t bytes, std::shared_ptr<const void> owner);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  void* data() { return data_; }
  const void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  Device device() const { return device_; }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  Device device_;
  std::shared_ptr<const void> owner_;  ///< of borrowed memory
};

/// Counters of live blocks, for leak tests and memory reports.
struct MemoryUse {
  std::int64_t live_blocks = 0;
  std::int64_t live_bytes = 0;
  std::int64_t peak_bytes = 0;
};
MemoryUse memory_use(DeviceType type);
void reset_peak_memory(DeviceType type);
/// Frees the host memory that is kept for further blocks.
void release_cached_memory();

/// Copies bytes between any two devices; ordered on the current stream, complete on return when either end is
/// the CPU.
void copy_bytes(void* target, Device target_device, const void* source, Device source_device,
                std::size_t bytes);
/// Sets every byte to zero.
void zero_bytes(void* target, Device device, std::size_t bytes);

}  // namespace cinnabar
