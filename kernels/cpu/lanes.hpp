#pragma once

#include <cstdint>

#include "engine/divide_up.hpp"

// GCC notes that functions return such vectors in another way where the CPU has wider ones. None is called
// from another file.
#pragma GCC diagnostic ignored "-Wpsabi"

namespace cinnabar::cpu {

/// A register of the CPU that the build is for. GCC splits longer vectors, and keeps their parts in memory.
#if defined(__AVX512F__)
inline constexpr std::int64_t kLaneBytes = 64;
#elif defined(__AVX__)
inline constexpr std::int64_t kLaneBytes = 32;
#else
inline constexpr std::int64_t kLaneBytes = 16;
#endif

/// One number for each of as many channels as fit into a register.
template <class T>
struct LanesOf {
  typedef T type __attribute__((vector_size(kLaneBytes), may_alias));
};
template <class T>
using Lanes = typename LanesOf<T>::type;
template <class T>
inline constexpr std::int64_t kLanes = kLaneBytes / static_cast<std::int64_t>(sizeof(T));

template <class T>
struct ComplexLanes {
  Lanes<T> re, im;
};

/// Blocks of lanes that hold `channels`; the lanes left over are zero.
template <class T>
std::int64_t lane_blocks(std::int64_t channels) {
  return divide_up(channels, kLanes<T>);
}

}  // namespace cinnabar::cpu
