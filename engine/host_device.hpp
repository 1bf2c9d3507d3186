#pragma once

/// Marks arithmetic that the CPU loops and the CUDA kernels share: one definition, compiled by both.
#if defined(__CUDACC__)
#define CINNABAR_HD __host__ __device__ __forceinline__
#else
#define CINNABAR_HD [[gnu::always_inline]] inline  // a call left in a loop keeps it from vectorising
#endif

/// Before a loop of few iterations: unrolls it on both, which also lets a loop around it vectorise.
#if defined(__CUDACC__)
#define CINNABAR_UNROLL _Pragma("unroll")
#elif defined(__clang__)
#define CINNABAR_UNROLL _Pragma("clang loop unroll(full)")
#else
#define CINNABAR_UNROLL _Pragma("GCC unroll 16")
#endif
