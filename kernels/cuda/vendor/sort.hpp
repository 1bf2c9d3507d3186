#pragma once

#include <cstdint>

#include "engine/device.hpp"

namespace cinnabar::cuda::vendor {

/// Sorts `count` floats in ascending order into `sorted`, on the current stream of the device. -0 comes
/// before 0 and infinity last; the values must not be NaN, and the arrays must not overlap.
void sort_ascending(const float* values, std::int64_t count, float* sorted, Device device);

}  // namespace cinnabar::cuda::vendor
