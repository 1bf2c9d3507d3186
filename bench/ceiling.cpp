#include "bench/ceiling.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <map>

#include "engine/storage.hpp"
#include "kernels/parallel.hpp"

#ifdef CINNABAR_HAS_CUDA
#include <cuda_runtime_api.h>

#include "engine/cuda_check.hpp"
#include "engine/stream.hpp"
#endif

namespace cinnabar::bench {
namespace {

// Above every last-level cache the project meets (60 MB of L2 on an H200); the emulator only has to run.
std::size_t large_bytes(Device device) {
  if (device.is_cuda()) return cuda_is_emulated() ? std::size_t{1} << 20 : std::size_t{1} << 29;
  return std::size_t{1} << 27;
}

void copy_large(const Storage& source, Storage& target) {
  if (source.device().is_cuda()) {
    copy_bytes(target.data(), target.device(), source.data(), source.device(), source.bytes());
    return;
  }
  const auto* from = static_cast<const char*>(source.data());
  auto* to = static_cast<char*>(target.data());
  parallel_for(static_cast<std::int64_t>(source.bytes()), std::int64_t{1} << 22,
               [&](std::int64_t first, std::int64_t last) {
                 std::memcpy(to + first, from + first, static_cast<std::size_t>(last - first));
               });
}

double host_seconds_of(Device device, const std::function<void()>& run) {
  synchronize(device);
  const auto start = std::chrono::steady_clock::now();
  run();
  synchronize(device);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

#if defined(CINNABAR_HAS_CUDA) && !defined(CINNABAR_EMULATED)
class Event {
 public:
  Event() { check_cuda(cudaEventCreate(&event_), "event"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

double gpu_seconds_of(Device device, const std::function<void()>& run) {
  const Event start, stop;
  const auto stream = static_cast<cudaStream_t>(current_stream(device));
  check_cuda(cudaEventRecord(start.get(), stream), "event");
  run();
  check_cuda(cudaEventRecord(stop.get(), stream), "event");
  check_cuda(cudaEventSynchronize(stop.get()), "event");
  float milliseconds = 0;
  check_cuda(cudaEventElapsedTime(&milliseconds, start.get(), stop.get()), "event");
  return 1e-3 * static_cast<double>(milliseconds);
}
#endif

}  // namespace

double seconds_of(Device device, const std::function<void()>& run) {
#if defined(CINNABAR_HAS_CUDA) && !defined(CINNABAR_EMULATED)
  if (device.is_cuda()) return gpu_seconds_of(device, run);
#endif
  return host_seconds_of(device, run);
}

double copy_ceiling(Device device) {
  static std::map<Device, double> measured;
  if (const auto found = measured.find(device); found != measured.end()) return found->second;
  Storage source(large_bytes(device), device);
  Storage target(large_bytes(device), device);
  zero_bytes(source.data(), device, source.bytes());
  copy_large(source, target);
  double fastest = std::numeric_limits<double>::infinity();
  for (int repetition = 0; repetition < 7; ++repetition) {
    fastest = std::min(fastest, seconds_of(device, [&] { copy_large(source, target); }));
  }
  return measured[device] = 2.0 * static_cast<double>(source.bytes()) / fastest;
}

void evict_caches(Device device) {
  static std::map<Device, Storage> buffers;
  auto [found, inserted] = buffers.try_emplace(device, large_bytes(device) / 2, device);
  zero_bytes(found->second.data(), device, found->second.bytes());
}

}  // namespace cinnabar::bench
