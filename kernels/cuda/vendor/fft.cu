// cuFFT behind kernels/cuda/vendor/fft.hpp. Compiled only, not yet run on a GPU.

#include "kernels/cuda/vendor/fft.hpp"

#include <cufft.h>

#include <limits>
#include <map>
#include <mutex>
#include <tuple>

#include "engine/cuda_check.hpp"
#include "engine/stream.hpp"

namespace cinnabar::cuda::vendor {
namespace {

void check_cufft(cufftResult status, const char* call, const FftShape& shape) {
  CINNABAR_CHECK(status == CUFFT_SUCCESS, call, "cuFFT error ", static_cast<int>(status), " for a batch of ",
                 shape.batch, " volumes ", shape.d, " x ", shape.h, " x ", shape.w);
}

/// A plan owns work memory that one transform at a time may use, so every stream has its own plans. At most
/// kMostPlans are kept; then all are dropped and made again as needed.
class PlanCache {
 public:
  static constexpr std::size_t kMostPlans = 32;

  cufftHandle find(Device device, cudaStream_t stream, const FftShape& shape, cufftType type) {
    const Key key{device.index, stream, shape, static_cast<int>(type)};
    if (const auto found = plans_.find(key); found != plans_.end()) return found->second;
    if (plans_.size() >= kMostPlans) clear();
    for (const std::int64_t extent : {shape.batch, shape.d, shape.h, shape.w}) {
      CINNABAR_CHECK(extent > 0 && extent <= std::numeric_limits<int>::max(), "cufft", "bad extent ", extent);
    }
    int extents[3] = {static_cast<int>(shape.d), static_cast<int>(shape.h), static_cast<int>(shape.w)};
    cufftHandle plan = 0;
    check_cufft(
        cufftPlanMany(&plan, 3, extents, nullptr, 1, 0, nullptr, 1, 0, type, static_cast<int>(shape.batch)),
        "cufftPlanMany", shape);
    plans_.emplace(key, plan);
    check_cufft(cufftSetStream(plan, stream), "cufftSetStream", shape);
    return plan;
  }

 private:
  using Key = std::tuple<int, cudaStream_t, FftShape, int>;

  void clear() {
    for (const auto& [key, plan] : plans_) {
      const DeviceScope scope(Device::cuda(std::get<0>(key)));
      CINNABAR_CUDA(cudaDeviceSynchronize());  // a plan's work memory may still be in use
      cufftDestroy(plan);
    }
    plans_.clear();
  }

  std::map<Key, cufftHandle> plans_;
};

/// Never destroyed: at process exit the driver may be gone before it.
PlanCache& cache() {
  static auto* plans = new PlanCache;
  return *plans;
}
std::mutex mutex;

}  // namespace

void fft_forward(Device device, const FftShape& shape, const float* real, float* spectrum) {
  const DeviceScope scope(device);
  const std::lock_guard lock(mutex);
  const auto stream = static_cast<cudaStream_t>(current_stream(device));
  const cufftHandle plan = cache().find(device, stream, shape, CUFFT_R2C);
  check_cufft(cufftExecR2C(plan, const_cast<float*>(real), reinterpret_cast<cufftComplex*>(spectrum)),
              "cufftExecR2C", shape);
}

void fft_inverse(Device device, const FftShape& shape, float* spectrum, float* real) {
  const DeviceScope scope(device);
  const std::lock_guard lock(mutex);
  const auto stream = static_cast<cudaStream_t>(current_stream(device));
  const cufftHandle plan = cache().find(device, stream, shape, CUFFT_C2R);
  check_cufft(cufftExecC2R(plan, reinterpret_cast<cufftComplex*>(spectrum), real), "cufftExecC2R", shape);
}

}  // namespace cinnabar::cuda::vendor
