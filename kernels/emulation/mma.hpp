#pragma once

// The matrix product of a warp, mma.sync, lane by lane: every lane finds its operands in the fragments of the
// lanes that the PTX ISA names, so a kernel that fills them wrongly gets a wrong product here too.

#include <cstddef>
#include <cstdint>
#include <source_location>

#include "kernels/emulation/block.hpp"

namespace cinnabar::emulation {

/// The operands in the words of a lane's fragments, in order.
struct MmaFragments {
  float a[4][2];
  float b[2][2];
};
/// Of the threads of the running block. Blocks run one after another, so one set is enough.
inline thread_local constinit MmaFragments mma_fragments[kMaxBlockThreads] = {};

template <class Operand>
void unpack_operands(std::uint32_t word, float (&values)[2]) {
  for (std::size_t i = 0; i < 4 / sizeof(Operand); ++i) {
    Operand operand;
    operand.bits = static_cast<decltype(operand.bits)>(word >> 16 * i);
    values[i] = static_cast<float>(operand);
  }
}

/// Meets the other lanes. Unlike __syncwarp(), mma.sync orders no memory accesses.
inline void meet_warp(const std::source_location& where) {
  constexpr std::uint32_t kAll = 0xffffffffu;
  if (warp_exchange(WarpOperation::ballot, kAll, 1, 0, where) != kAll) {
    fail_in_kernel("mma.sync without all 32 lanes of the warp");
  }
}

/// mma.sync with the shapes and fragments of kernels/cuda/mma_tile.cuh: D[i][j] = C[i][j] + sum over k of
/// A[i][k] B[k][j], in order; the products are exact. A GPU may add in another order.
template <class Operand>
void mma_tile(const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], float (&c)[4],
              const std::source_location& where = std::source_location::current()) {
  MmaFragments* const warp = mma_fragments + current.warp * kWarpSize;
  const int lane = current.lane;
  for (int i = 0; i < 4; ++i) unpack_operands<Operand>(a[i], warp[lane].a[i]);
  for (int i = 0; i < 2; ++i) unpack_operands<Operand>(b[i], warp[lane].b[i]);
  meet_warp(where);
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8;
    const int column = lane % 4 * 2 + i % 2;
    for (int k = 0; k < 8; ++k) {
      const float(&left)[2] = warp[row % 8 * 4 + k % 4].a[row / 8 + k / 4 * 2];
      const float(&right)[2] = warp[column * 4 + k % 4].b[k / 4];
      for (std::size_t v = 0; v < 4 / sizeof(Operand); ++v) c[i] += left[v] * right[v];
    }
  }
  meet_warp(where);  // before anyone fills the fragments anew
}

}  // namespace cinnabar::emulation
