#pragma once

// What kernels/cuda/shared_copy.cuh asks of a GPU, on the host: copies to shared memory, done at once, and
// ldmatrix, where every lane finds its words at the addresses that the lanes named.

#include <source_location>

#include "kernels/emulation/mma.hpp"
#include "kernels/emulation/shared.hpp"

namespace cinnabar::emulation {

inline void copy_words(SharedElement<std::uint32_t>* to, const uint4& from) {
  to[0] = from.x;
  to[1] = from.y;
  to[2] = from.z;
  to[3] = from.w;
}

/// Addresses of the threads of the running block.
inline thread_local constinit SharedElement<std::uint32_t>* matrix_rows[kMaxBlockThreads] = {};

/// ldmatrix .x4, transposed or not.
inline void load_matrices(SharedElement<std::uint32_t>* row, bool transposed, std::uint32_t (&words)[4],
                          const std::source_location& where = std::source_location::current()) {
  SharedElement<std::uint32_t>** const rows = matrix_rows + current.warp * kWarpSize;
  const int lane = current.lane, group = lane / 4, member = lane % 4;
  rows[lane] = row;
  meet_warp(where);
  for (int i = 0; i < 4; ++i) {
    if (!transposed) {
      words[i] = rows[i * 8 + group][member];
      continue;
    }
    const std::uint32_t first = rows[i * 8 + 2 * member][group / 2];
    const std::uint32_t second = rows[i * 8 + 2 * member + 1][group / 2];
    const int shift = group % 2 * 16;
    words[i] = (first >> shift & 0xffffu) | (second >> shift & 0xffffu) << 16;
  }
  meet_warp(where);  // before anyone names other rows
}

}  // namespace cinnabar::emulation
