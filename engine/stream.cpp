#include "engine/stream.hpp"

#include <map>

#include "engine/error.hpp"

#ifdef CINNABAR_HAS_CUDA
#include "engine/cuda_check.hpp"
#endif

namespace cinnabar {

namespace {

std::map<int, void*>& streams_of_thread() {
  thread_local std::map<int, void*> streams;
  return streams;
}

}  // namespace

Stream::Stream(Device device) : device_(device) {
  require_device(device);
#ifdef CINNABAR_HAS_CUDA
  if (device.is_cuda()) {
    const DeviceScope scope(device);
    cudaStream_t stream = nullptr;
    CINNABAR_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    handle_ = stream;
  }
#endif
}

Stream::~Stream() {
#ifdef CINNABAR_HAS_CUDA
  if (handle_ != nullptr) cudaStreamDestroy(static_cast<cudaStream_t>(handle_));
#endif
}

void Stream::synchronize() const {
#ifdef CINNABAR_HAS_CUDA
  if (handle_ != nullptr) CINNABAR_CUDA(cudaStreamSynchronize(static_cast<cudaStream_t>(handle_)));
#endif
}

void* current_stream(Device device) {
  const auto& streams = streams_of_thread();
  const auto found = streams.find(device.index);
  return device.is_cpu() || found == streams.end() ? nullptr : found->second;
}

StreamScope::StreamScope(const Stream& stream) : device_(stream.device()) {
  if (device_.is_cpu()) return;
  void*& current = streams_of_thread()[device_.index];
  previous_ = current;
  current = stream.handle();
}

StreamScope::~StreamScope() {
  if (device_.is_cuda()) streams_of_thread()[device_.index] = previous_;
}

}  // namespace cinnabar
