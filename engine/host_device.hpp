#pragma once

/// Marks arithmetic that the CPU loops and the CUDA kernels share: one definition, compiled by both.
#if defined(__CUDACC__)
#define CINNABAR_HD __host__ __device__ __forceinline__
#else
#define CINNABAR_HD inline
#endif
