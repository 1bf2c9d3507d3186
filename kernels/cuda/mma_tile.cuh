#pragma once

// The tensor cores' product of two small matrices, one PTX instruction behind one function. An operand is
// TensorFloat32, Half or BFloat16; a 32-bit word holds one of the first or two of the others, neighbours
// along the depth, the earlier one in the lower half. In words the fragments of all three are laid out alike
// (PTX ISA, "Matrix fragments for mma.m16n8k8" and "mma.m16n8k16"): with group = lane / 4 and member = lane %
// 4,
//
//   a[0], a[1]   rows group, group + 8, word member of the depth;     a[2], a[3]   the same, word member + 4
//   b[0], b[1]   column group, words member, member + 4 of the depth
//   c[0], c[1]   row group, columns 2 member, 2 member + 1;           c[2], c[3]   the same, row group + 8
//
// TensorFloat32 and BFloat16 need sm_80, Half sm_75 (as two instructions of half the depth); below, a kernel
// that multiplies so traps, and mma_is_compiled() says so beforehand.

#ifdef CINNABAR_EMULATED
#include "kernels/emulation/mma.hpp"
#endif

#include <type_traits>

#include "kernels/conv3d_precision.hpp"
#include "kernels/cuda/launch.cuh"

namespace cinnabar::cuda {
namespace {

constexpr int kMmaRows = 16;
constexpr int kMmaColumns = 8;
constexpr int kMmaWords = 8;  // of the depth

/// Operands in a word.
template <class Operand>
constexpr int kInWord = 4 / static_cast<int>(sizeof(Operand));

/// Rounds the values of a word.
template <class Operand>
__device__ __forceinline__ std::uint32_t operand_word(const float (&values)[kInWord<Operand>]) {
  if constexpr (std::is_same_v<Operand, TensorFloat32>) {
    return TensorFloat32(values[0]).bits;
  } else {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    std::uint32_t word;  // the first source goes to the upper half
    if constexpr (std::is_same_v<Operand, Half>) {
      asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(values[1]), "f"(values[0]));
    } else {
      asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(values[1]), "f"(values[0]));
    }
    return word;
#else
    return Operand(values[0]).bits | static_cast<std::uint32_t>(Operand(values[1]).bits) << 16;
#endif
  }
}

/// c += a b, a 16 x 8 product by all 32 lanes of a warp; the depth is 8 words. Sums are f32.
template <class Operand>
__device__ __forceinline__ void mma_tile(const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                                         float (&c)[4]) {
#if defined(CINNABAR_EMULATED)
  emulation::mma_tile<Operand>(a, b, c);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  if constexpr (std::is_same_v<Operand, TensorFloat32>) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else if constexpr (std::is_same_v<Operand, Half>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 750
  if constexpr (std::is_same_v<Operand, Half>) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
          "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
    }
  } else {
    __trap();
  }
#else
  __trap();
#endif
}

/// Whether mma_tile<Operand> works in code compiled for an architecture, such as 80 for sm_80.
template <class Operand>
constexpr bool mma_is_compiled(int architecture) {
  return architecture >= (std::is_same_v<Operand, Half> ? 75 : 80);
}

}  // namespace
}  // namespace cinnabar::cuda
