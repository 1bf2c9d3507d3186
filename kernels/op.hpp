#pragma once

#include "engine/tensor.hpp"

/// Declares the kernel tables of one op, `cpu::NAME` and `cuda::NAME`, and `NAME_on(device)`, which picks
/// one. TABLE is the op's struct of function pointers. In a build without CUDA, asking for the CUDA table
/// throws.
#ifdef CINNABAR_HAS_CUDA
#define CINNABAR_OP(TABLE, NAME)                             \
  namespace cpu {                                            \
  extern const TABLE NAME;                                   \
  }                                                          \
  namespace cuda {                                           \
  extern const TABLE NAME;                                   \
  }                                                          \
  inline const TABLE& NAME##_on(::cinnabar::Device device) { \
    return device.is_cpu() ? cpu::NAME : cuda::NAME;         \
  }                                                          \
  static_assert(true)
#else
#define CINNABAR_OP(TABLE, NAME)                                         \
  namespace cpu {                                                        \
  extern const TABLE NAME;                                               \
  }                                                                      \
  inline const TABLE& NAME##_on(::cinnabar::Device device) {             \
    if (!device.is_cpu()) ::cinnabar::fail(#NAME, "built without CUDA"); \
    return cpu::NAME;                                                    \
  }                                                                      \
  static_assert(true)
#endif
