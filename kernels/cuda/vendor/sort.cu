// CUB's radix sort behind kernels/cuda/vendor/sort.hpp.
#include "kernels/cuda/vendor/sort.hpp"

#include <cub/device/device_radix_sort.cuh>

#include "engine/cuda_check.hpp"
#include "engine/stream.hpp"
#include "engine/tensor.hpp"

namespace cinnabar::cuda::vendor {

void sort_ascending(const float* values, std::int64_t count, float* sorted, Device device) {
  const DeviceScope scope(device);
  const auto stream = static_cast<cudaStream_t>(current_stream(device));
  std::size_t bytes = 0;
  constexpr int kBits = 32;
  CINNABAR_CUDA(cub::DeviceRadixSort::SortKeys(nullptr, bytes, values, sorted, count, 0, kBits, stream));
  Tensor scratch = Tensor::empty({static_cast<std::int64_t>(bytes)}, DType::u8, device);
  CINNABAR_CUDA(
      cub::DeviceRadixSort::SortKeys(scratch.raw(), bytes, values, sorted, count, 0, kBits, stream));
}

}  // namespace cinnabar::cuda::vendor
