#pragma once

#include <cstdint>

#include "engine/divide_up.hpp"

// GCC notes that functions return such vectors in another way where the CPU has AVX-512. None is called from another
// file.
#pragma GCC diagnostic ignored "-Wpsabi"

namespace cinnabar::cpu {

/// One number for each of as many channels as fit into a cache line, which with AVX-512 is a register.
template <class T>
struct LanesOf {
  typedef T type __attribute__((vector_size(64), may_alias));
};
template <class T>
using Lanes = typename LanesOf<T>::type;
template <class T>
inline constexpr std::int64_t kLanes = 64 / static_cast<std::int64_t>(sizeof(T));

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
