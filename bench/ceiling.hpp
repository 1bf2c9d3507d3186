#pragma once

#include <functional>

#include "engine/device.hpp"

namespace cinnabar::bench {

/// Bytes per second, read and written together, of the fastest of several plain copies between two buffers
/// that fit in no cache. Measured once per process and device: the ceiling of a memory-bound kernel.
double copy_ceiling(Device device);

/// Overwrites a buffer larger than the caches of `device`, so that the next kernel starts cold.
void evict_caches(Device device);

/// Seconds that `run` takes on `device` until its results are there. On a GPU this is the time between two
/// events on the current stream, which leaves out the latency of synchronising.
double seconds_of(Device device, const std::function<void()>& run);

}  // namespace cinnabar::bench
