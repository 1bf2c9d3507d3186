#pragma once

// Copies of 16 bytes from global to shared memory that a thread starts and does not wait for (cp.async, from
// sm_80 on; below and in the emulator they are done at once), and the loads of the tensor cores' fragments
// from there (ldmatrix, from sm_75 on).

#ifdef CINNABAR_EMULATED
#include "kernels/emulation/shared_copy.hpp"
#endif

#include "kernels/cuda/launch.cuh"

namespace cinnabar::cuda {
namespace {

#ifndef CINNABAR_EMULATED
__device__ __forceinline__ std::uint32_t shared_address(SharedPointer<const std::uint32_t> word) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(word));
}
#endif

/// Starts a copy of four words, which stays in L1 for the next reader. Both addresses are multiples of 16.
__device__ __forceinline__ void start_copy(SharedPointer<std::uint32_t> to, const uint4* from) {
#if defined(CINNABAR_EMULATED)
  emulation::copy_words(to, *from);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.ca.shared.global [%0], [%1], 16;"
               :
               : "r"(shared_address(to)), "l"(__cvta_generic_to_global(from))
               : "memory");
#else
  *reinterpret_cast<uint4*>(to) = *from;
#endif
}

/// The same, or zeros.
__device__ __forceinline__ void start_copy(SharedPointer<std::uint32_t> to, const uint4* from, bool reads) {
#if defined(CINNABAR_EMULATED)
  emulation::copy_words(to, reads ? *from : uint4{0, 0, 0, 0});
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const int bytes = reads ? 16 : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(shared_address(to)), "l"(__cvta_generic_to_global(from)), "r"(bytes)
               : "memory");
#else
  *reinterpret_cast<uint4*>(to) = reads ? *from : uint4{0, 0, 0, 0};
#endif
}

/// Ends a group of this thread's copies; an empty one counts too.
__device__ __forceinline__ void end_copies() {
#if !defined(CINNABAR_EMULATED) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" : : : "memory");
#endif
}

/// Waits for all groups of this thread but the last kLater. Other threads see them after a barrier.
template <int kLater>
__device__ __forceinline__ void wait_for_copies() {
#if !defined(CINNABAR_EMULATED) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" : : "n"(kLater) : "memory");
#endif
}

/// Four matrices of 8 rows of 16 bytes by all 32 lanes of a warp; lane l names row l % 8 of matrix l / 8.
/// With group = lane / 4 and member = lane % 4, words[i] is word `member` of row `group` of matrix i;
/// transposed it is the 16-bit elements `group` of rows 2 member and, in the upper half, 2 member + 1.
template <bool kTransposed>
__device__ __forceinline__ void load_matrices(SharedPointer<std::uint32_t> row, std::uint32_t (&words)[4]) {
#if defined(CINNABAR_EMULATED)
  emulation::load_matrices(row, kTransposed, words);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 750
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(shared_address(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(shared_address(row))
                 : "memory");
  }
#else
  __trap();
#endif
}

}  // namespace
}  // namespace cinnabar::cuda
