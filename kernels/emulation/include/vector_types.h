#pragma once

// CUDA's built-in vector types with the alignments that vectorised loads rely on: UBSan reports a misaligned
// float4 on the emulator where a GPU would stop the kernel.

#define CINNABAR_VECTOR_TYPES(NAME, TYPE)                                  \
  struct NAME##2 {                                                         \
    TYPE x, y;                                                             \
  }                                                                        \
  __attribute__((aligned(2 * sizeof(TYPE))));                              \
  struct NAME##3 {                                                         \
    TYPE x, y, z;                                                          \
  };                                                                       \
  struct NAME##4 {                                                         \
    TYPE x, y, z, w;                                                       \
  }                                                                        \
  __attribute__((aligned(4 * sizeof(TYPE) < 16 ? 4 * sizeof(TYPE) : 16))); \
  constexpr NAME##2 make_##NAME##2(TYPE x, TYPE y) {                       \
    return {x, y};                                                         \
  }                                                                        \
  constexpr NAME##3 make_##NAME##3(TYPE x, TYPE y, TYPE z) {               \
    return {x, y, z};                                                      \
  }                                                                        \
  constexpr NAME##4 make_##NAME##4(TYPE x, TYPE y, TYPE z, TYPE w) {       \
    return {x, y, z, w};                                                   \
  }                                                                        \
  static_assert(true)

CINNABAR_VECTOR_TYPES(char, signed char);
CINNABAR_VECTOR_TYPES(uchar, unsigned char);
CINNABAR_VECTOR_TYPES(short, short);
CINNABAR_VECTOR_TYPES(ushort, unsigned short);
CINNABAR_VECTOR_TYPES(int, int);
CINNABAR_VECTOR_TYPES(uint, unsigned int);
CINNABAR_VECTOR_TYPES(longlong, long long);
CINNABAR_VECTOR_TYPES(ulonglong, unsigned long long);
CINNABAR_VECTOR_TYPES(float, float);
CINNABAR_VECTOR_TYPES(double, double);

#undef CINNABAR_VECTOR_TYPES

/// Extents of a grid or a block; what is not given is 1.
struct dim3 {
  unsigned int x = 1, y = 1, z = 1;
  constexpr dim3(unsigned int x_ = 1, unsigned int y_ = 1, unsigned int z_ = 1) : x(x_), y(y_), z(z_) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};
