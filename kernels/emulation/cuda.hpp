#pragma once

// CUDA C++ as host C++: the language's words and built-in functions, for compiling kernels/cuda/*.cu with the
// host compiler. docs/emulator.md tells what this shows and what it cannot.

#include <cmath>
#include <source_location>

#include "kernels/emulation/block.hpp"
#include "kernels/emulation/intrinsics.hpp"
#include "kernels/emulation/shared.hpp"
#include "vector_types.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

// --- Synchronisation.

inline void __syncthreads(const std::source_location& where = std::source_location::current()) {
  cinnabar::emulation::block_barrier("__syncthreads", false, where);
}
inline int __syncthreads_count(int predicate,
                               const std::source_location& where = std::source_location::current()) {
  return cinnabar::emulation::block_barrier("__syncthreads_count", predicate != 0, where);
}
inline int __syncthreads_or(int predicate,
                            const std::source_location& where = std::source_location::current()) {
  return cinnabar::emulation::block_barrier("__syncthreads_or", predicate != 0, where) > 0 ? 1 : 0;
}
inline int __syncthreads_and(int predicate,
                             const std::source_location& where = std::source_location::current()) {
  return cinnabar::emulation::block_barrier("__syncthreads_and", predicate == 0, where) == 0 ? 1 : 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu,
                       const std::source_location& where = std::source_location::current()) {
  cinnabar::emulation::warp_exchange(cinnabar::emulation::WarpOperation::sync, mask, 0, 0, where);
}
inline void __threadfence() {}
inline void __threadfence_block() {}

// --- Warp votes.

/// Every set of converged lanes is right on a GPU; the emulator runs one lane at a time, so it is this lane.
inline unsigned __activemask() {
  return 1u << cinnabar::emulation::current.lane;
}
inline unsigned __ballot_sync(unsigned mask, int predicate,
                              const std::source_location& where = std::source_location::current()) {
  using cinnabar::emulation::WarpOperation;
  return static_cast<unsigned>(
      cinnabar::emulation::warp_exchange(WarpOperation::ballot, mask, predicate != 0, 0, where));
}
inline int __any_sync(unsigned mask, int predicate,
                      const std::source_location& where = std::source_location::current()) {
  return __ballot_sync(mask, predicate, where) != 0 ? 1 : 0;
}
inline int __all_sync(unsigned mask, int predicate,
                      const std::source_location& where = std::source_location::current()) {
  using cinnabar::emulation::WarpOperation;
  return static_cast<int>(
      cinnabar::emulation::warp_exchange(WarpOperation::all, mask, predicate != 0, 0, where));
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value,
                          const std::source_location& where = std::source_location::current()) {
  using namespace cinnabar::emulation;
  return static_cast<unsigned>(warp_exchange(WarpOperation::match, mask, to_bits(value), 0, where));
}

// --- Warp shuffles, with the lane arithmetic of PTX's shfl.sync (PTX ISA, "shfl.sync").

namespace cinnabar::emulation {

template <class T>
T shuffle(unsigned mask, T value, int source_lane, bool in_segment, const std::source_location& where) {
  const int source = in_segment ? source_lane : current.lane;
  return from_bits<T>(warp_exchange(WarpOperation::shuffle, mask, to_bits(value), source, where));
}

/// First and last lane of the segment of `width` lanes that holds the running lane.
inline int first_lane(int width) {
  if (width != 1 && width != 2 && width != 4 && width != 8 && width != 16 && width != 32) {
    fail_in_kernel("the width of a shuffle is not a power of two up to 32");
  }
  return current.lane & ~(width - 1);
}
inline int last_lane(int width) {
  return first_lane(width) + width - 1;
}

}  // namespace cinnabar::emulation

template <class T>
T __shfl_sync(unsigned mask, T value, int source_lane, int width = 32,
              const std::source_location& where = std::source_location::current()) {
  using namespace cinnabar::emulation;
  return shuffle(mask, value, first_lane(width) + (source_lane & (width - 1)), true, where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 const std::source_location& where = std::source_location::current()) {
  using namespace cinnabar::emulation;
  const int source = current.lane - static_cast<int>(delta & 31u);
  return shuffle(mask, value, source, source >= first_lane(width), where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   const std::source_location& where = std::source_location::current()) {
  using namespace cinnabar::emulation;
  const int source = current.lane + static_cast<int>(delta & 31u);
  return shuffle(mask, value, source, source <= last_lane(width), where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                  const std::source_location& where = std::source_location::current()) {
  using namespace cinnabar::emulation;
  const int source = current.lane ^ (lane_mask & 31);
  return shuffle(mask, value, source, source <= last_lane(width), where);
}
