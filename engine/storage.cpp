#include "engine/storage.hpp"

#include <atomic>
#include <cstring>
#include <limits>
#include <utility>

#include "engine/block_cache.hpp"
#include "engine/error.hpp"

#ifdef CINNABAR_HAS_CUDA
#include "engine/cuda_check.hpp"
#include "engine/stream.hpp"
#endif

namespace cinnabar {

namespace {

/// Not destroyed at exit, where tensors with static lifetime may still be freed.
BlockCache& cpu_blocks() {
  static BlockCache& blocks = *new BlockCache;
  return blocks;
}

struct Counters {
  std::atomic<std::int64_t> blocks{0};
  std::atomic<std::int64_t> bytes{0};
  std::atomic<std::int64_t> peak{0};

  void add(std::int64_t count) {
    blocks.fetch_add(1, std::memory_order_relaxed);
    const std::int64_t now = bytes.fetch_add(count, std::memory_order_relaxed) + count;
    std::int64_t seen = peak.load(std::memory_order_relaxed);
    while (now > seen && !peak.compare_exchange_weak(seen, now, std::memory_order_relaxed)) {
    }
  }
  void remove(std::int64_t count) {
    blocks.fetch_sub(1, std::memory_order_relaxed);
    bytes.fetch_sub(count, std::memory_order_relaxed);
  }
};

Counters& counters(DeviceType type) {
  static Counters of_type[2];
  return of_type[type == DeviceType::cpu ? 0 : 1];
}

#ifdef CINNABAR_HAS_CUDA

/// The device's pool, told once to keep freed memory for the next allocation instead of returning it.
void* allocate_cuda(std::size_t bytes, Device device) {
  const DeviceScope scope(device);
  static std::atomic<std::uint64_t> configured{0};
  const std::uint64_t bit = std::uint64_t{1} << (device.index & 63);
  if ((configured.fetch_or(bit) & bit) == 0) {
    cudaMemPool_t pool = nullptr;
    CINNABAR_CUDA(cudaDeviceGetDefaultMemPool(&pool, device.index));
    std::uint64_t threshold = std::numeric_limits<std::uint64_t>::max();
    CINNABAR_CUDA(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold));
  }
  void* data = nullptr;
  const cudaError_t status = cudaMallocAsync(&data, bytes, static_cast<cudaStream_t>(current_stream(device)));
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    fail("storage", detail::concat("out of memory on ", device, ": asked for ", bytes, " bytes"));
  }
  check_cuda(status, "cudaMallocAsync");
  return data;
}

#endif

}  // namespace

Storage::Storage(std::size_t bytes, Device device) : bytes_(bytes), device_(device) {
  require_device(device);
  if (device.is_cpu()) {
    data_ = cpu_blocks().take(bytes);
    CINNABAR_CHECK(data_ != nullptr, "storage", "out of memory: asked for ", bytes, " bytes");
  }
#ifdef CINNABAR_HAS_CUDA
  if (device.is_cuda()) data_ = allocate_cuda(bytes == 0 ? 1 : bytes, device);
#endif
  counters(device.type).add(static_cast<std::int64_t>(bytes));
}

Storage::Storage(void* data, std::size_t bytes, std::shared_ptr<const void> owner)
    : data_(data), bytes_(bytes), owner_(std::move(owner)) {
  CINNABAR_CHECK(owner_ != nullptr, "storage", "borrowed memory needs an owner");
}

Storage::~Storage() {
  if (owner_ != nullptr) return;
  if (device_.is_cpu()) cpu_blocks().give(data_, bytes_);
#ifdef CINNABAR_HAS_CUDA
  // Errors are dropped here: at process exit the runtime may already be gone.
  if (device_.is_cuda()) cudaFreeAsync(data_, static_cast<cudaStream_t>(current_stream(device_)));
#endif
  counters(device_.type).remove(static_cast<std::int64_t>(bytes_));
}

MemoryUse memory_use(DeviceType type) {
  const Counters& now = counters(type);
  return {now.blocks.load(), now.bytes.load(), now.peak.load()};
}

void release_cached_memory() {
  cpu_blocks().release();
}

void reset_peak_memory(DeviceType type) {
  Counters& now = counters(type);
  now.peak.store(now.bytes.load());
}

void copy_bytes(void* target, Device target_device, const void* source, Device source_device,
                std::size_t bytes) {
  if (bytes == 0) return;
  if (target_device.is_cpu() && source_device.is_cpu()) {
    std::memcpy(target, source, bytes);
    return;
  }
#ifdef CINNABAR_HAS_CUDA
  const Device device = target_device.is_cuda() ? target_device : source_device;
  const DeviceScope scope(device);
  const auto stream = static_cast<cudaStream_t>(current_stream(device));
  CINNABAR_CUDA(cudaMemcpyAsync(target, source, bytes, cudaMemcpyDefault, stream));
  if (target_device.is_cpu() || source_device.is_cpu()) CINNABAR_CUDA(cudaStreamSynchronize(stream));
#else
  require_device(target_device.is_cuda() ? target_device : source_device);
#endif
}

void zero_bytes(void* target, Device device, std::size_t bytes) {
  if (bytes == 0) return;
  if (device.is_cpu()) {
    std::memset(target, 0, bytes);
    return;
  }
#ifdef CINNABAR_HAS_CUDA
  const DeviceScope scope(device);
  CINNABAR_CUDA(cudaMemsetAsync(target, 0, bytes, static_cast<cudaStream_t>(current_stream(device))));
#else
  require_device(device);
#endif
}

}  // namespace cinnabar
