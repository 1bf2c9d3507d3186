// cuFFT behind kernels/cuda/vendor/fft.hpp.

#include "kernels/cuda/vendor/fft.hpp"

#include <cufft.h>

#include <limits>
#include <map>
#include <mutex>
#include <tuple>

#include "engine/cuda_check.hpp"
#include "engine/storage.hpp"
#include "engine/stream.hpp"

namespace cinnabar::cuda::vendor {
namespace {

void check_cufft(cufftResult status, const char* call, const FftShape& shape) {
  CINNABAR_CHECK(status == CUFFT_SUCCESS, call, "cuFFT error ", static_cast<int>(status), " for a batch of ",
                 shape.batch, " volumes ", shape.d, " x ", shape.h, " x ", shape.w);
}

struct Plan {
  cufftHandle handle = 0;
  std::size_t work_bytes = 0;
};

/// Plans by shape. They own no work memory, which a transform takes from the device's pool for as long as it
/// runs. At most kMostPlans are kept; then all are dropped and made again as needed.
class PlanCache {
 public:
  static constexpr std::size_t kMostPlans = 256;

  Plan find(Device device, const FftShape& shape, cufftType type) {
    const Key key{device.index, shape, static_cast<int>(type)};
    if (const auto found = plans_.find(key); found != plans_.end()) return found->second;
    if (plans_.size() >= kMostPlans) clear();
    for (const std::int64_t extent : {shape.batch, shape.d, shape.h, shape.w}) {
      CINNABAR_CHECK(extent > 0 && extent <= std::numeric_limits<int>::max(), "cufft", "bad extent ", extent);
    }
    int extents[3] = {static_cast<int>(shape.d), static_cast<int>(shape.h), static_cast<int>(shape.w)};
    Plan plan;
    check_cufft(cufftCreate(&plan.handle), "cufftCreate", shape);
    check_cufft(cufftSetAutoAllocation(plan.handle, 0), "cufftSetAutoAllocation", shape);
    check_cufft(cufftMakePlanMany(plan.handle, 3, extents, nullptr, 1, 0, nullptr, 1, 0, type,
                                  static_cast<int>(shape.batch), &plan.work_bytes),
                "cufftMakePlanMany", shape);
    plans_.emplace(key, plan);
    return plan;
  }

 private:
  using Key = std::tuple<int, FftShape, int>;

  void clear() {
    for (const auto& [key, plan] : plans_) {
      const DeviceScope scope(Device::cuda(std::get<0>(key)));
      CINNABAR_CUDA(cudaDeviceSynchronize());
      cufftDestroy(plan.handle);
    }
    plans_.clear();
  }

  std::map<Key, Plan> plans_;
};

/// Never destroyed: at process exit the driver may be gone before it.
PlanCache& cache() {
  static auto* plans = new PlanCache;
  return *plans;
}
std::mutex mutex;

/// Calls execute(plan) with the plan on the current stream.
template <class Execute>
void run(Device device, const FftShape& shape, cufftType type, const Execute& execute) {
  const DeviceScope scope(device);
  const std::lock_guard lock(mutex);
  const Plan plan = cache().find(device, shape, type);
  Storage work(plan.work_bytes, device);  // freed in the stream's order, behind the transform
  check_cufft(cufftSetWorkArea(plan.handle, work.data()), "cufftSetWorkArea", shape);
  check_cufft(cufftSetStream(plan.handle, static_cast<cudaStream_t>(current_stream(device))),
              "cufftSetStream", shape);
  execute(plan.handle);
}

}  // namespace

void fft_forward(Device device, const FftShape& shape, const float* real, float* spectrum) {
  run(device, shape, CUFFT_R2C, [&](cufftHandle plan) {
    check_cufft(cufftExecR2C(plan, const_cast<float*>(real), reinterpret_cast<cufftComplex*>(spectrum)),
                "cufftExecR2C", shape);
  });
}

void fft_inverse(Device device, const FftShape& shape, float* spectrum, float* real) {
  run(device, shape, CUFFT_C2R, [&](cufftHandle plan) {
    check_cufft(cufftExecC2R(plan, reinterpret_cast<cufftComplex*>(spectrum), real), "cufftExecC2R", shape);
  });
}

}  // namespace cinnabar::cuda::vendor
