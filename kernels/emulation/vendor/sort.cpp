// The host stand-in of kernels/cuda/vendor/sort.cu.
#include "kernels/cuda/vendor/sort.hpp"

#include <algorithm>
#include <cmath>

namespace cinnabar::cuda::vendor {

void sort_ascending(const float* values, std::int64_t count, float* sorted, Device) {
  std::copy(values, values + count, sorted);
  std::sort(sorted, sorted + count,
            [](float a, float b) { return a < b || (a == b && std::signbit(a) && !std::signbit(b)); });
}

}  // namespace cinnabar::cuda::vendor
