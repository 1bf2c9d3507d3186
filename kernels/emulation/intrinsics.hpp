#pragma once

// Built-in functions of a single CUDA thread: atomics, bits, conversions, arithmetic.

#include <math.h>

#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "kernels/emulation/shared.hpp"

namespace cinnabar::emulation {

template <class T>
std::uint64_t to_bits(T value) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) <= 8, "warp operations take 4- and 8-byte numbers");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <class T>
T from_bits(std::uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

/// Replaces *address by change(value) in one step and returns the value before.
template <class T, class Change>
T atomically(T* address, const Change& change) {
  const std::atomic_ref<T> word(*address);
  T before = word.load();
  while (!word.compare_exchange_weak(before, change(before))) {
  }
  return before;
}
template <class T, class Change>
T atomically(SharedElement<T>* address, const Change& change) {
  return address->atomic([&](T& value) { value = change(value); });
}

/// CUDA's conversions saturate and turn NaN into 0 where C++ leaves the result undefined.
template <class To, class From>
To saturating(From value) {
  constexpr To kMin = std::numeric_limits<To>::min();
  constexpr To kMax = std::numeric_limits<To>::max();
  if (value != value) return 0;
  if (value <= static_cast<From>(kMin)) return kMin;
  if (value >= static_cast<From>(kMax)) return kMax;
  return static_cast<To>(value);
}

}  // namespace cinnabar::emulation

// --- Atomics: on device memory (T*) and on shared memory (a pointer to one of its words).

#define CINNABAR_ATOMIC(NAME, T, EXPRESSION)                                                 \
  inline T NAME(T* address, T value) {                                                       \
    return cinnabar::emulation::atomically(address, [=](T old) -> T { return EXPRESSION; }); \
  }                                                                                          \
  inline T NAME(cinnabar::emulation::SharedElement<T>* address, T value) {                   \
    return cinnabar::emulation::atomically(address, [=](T old) -> T { return EXPRESSION; }); \
  }                                                                                          \
  static_assert(true)
#define CINNABAR_ATOMIC_INTEGERS(NAME, EXPRESSION) \
  CINNABAR_ATOMIC(NAME, int, EXPRESSION);          \
  CINNABAR_ATOMIC(NAME, unsigned int, EXPRESSION); \
  CINNABAR_ATOMIC(NAME, long long, EXPRESSION);    \
  CINNABAR_ATOMIC(NAME, unsigned long long, EXPRESSION)

// Sums wrap as on a GPU; CUDA has no signed 64-bit atomicAdd.
CINNABAR_ATOMIC(atomicAdd, int, static_cast<int>(static_cast<unsigned>(old) + static_cast<unsigned>(value)));
CINNABAR_ATOMIC(atomicAdd, unsigned int, old + value);
CINNABAR_ATOMIC(atomicAdd, unsigned long long, old + value);
CINNABAR_ATOMIC(atomicAdd, float, old + value);
CINNABAR_ATOMIC(atomicAdd, double, old + value);
CINNABAR_ATOMIC(atomicSub, int, static_cast<int>(static_cast<unsigned>(old) - static_cast<unsigned>(value)));
CINNABAR_ATOMIC(atomicSub, unsigned int, old - value);
CINNABAR_ATOMIC_INTEGERS(atomicMax, old < value ? value : old);
CINNABAR_ATOMIC_INTEGERS(atomicMin, value < old ? value : old);
CINNABAR_ATOMIC_INTEGERS(atomicAnd, old& value);
CINNABAR_ATOMIC_INTEGERS(atomicOr, old | value);
CINNABAR_ATOMIC_INTEGERS(atomicXor, old ^ value);
CINNABAR_ATOMIC(atomicExch, int, (static_cast<void>(old), value));
CINNABAR_ATOMIC(atomicExch, unsigned int, (static_cast<void>(old), value));
CINNABAR_ATOMIC(atomicExch, unsigned long long, (static_cast<void>(old), value));
CINNABAR_ATOMIC(atomicExch, float, (static_cast<void>(old), value));
CINNABAR_ATOMIC(atomicInc, unsigned int, old >= value ? 0u : old + 1u);
CINNABAR_ATOMIC(atomicDec, unsigned int, old == 0u || old > value ? value : old - 1u);

#undef CINNABAR_ATOMIC_INTEGERS
#undef CINNABAR_ATOMIC

#define CINNABAR_ATOMIC_CAS(T)                                                                            \
  inline T atomicCAS(T* address, T compare, T value) {                                                    \
    return cinnabar::emulation::atomically(address, [=](T old) { return old == compare ? value : old; }); \
  }                                                                                                       \
  inline T atomicCAS(cinnabar::emulation::SharedElement<T>* address, T compare, T value) {                \
    return cinnabar::emulation::atomically(address, [=](T old) { return old == compare ? value : old; }); \
  }                                                                                                       \
  static_assert(true)
CINNABAR_ATOMIC_CAS(int);
CINNABAR_ATOMIC_CAS(unsigned int);
CINNABAR_ATOMIC_CAS(unsigned long long);
#undef CINNABAR_ATOMIC_CAS

// --- Loads and stores with cache hints.

#define CINNABAR_LOAD_HINT(NAME) \
  template <class T>             \
  T NAME(const T* address) {     \
    return *address;             \
  }                              \
  static_assert(true)
CINNABAR_LOAD_HINT(__ldg);
CINNABAR_LOAD_HINT(__ldca);
CINNABAR_LOAD_HINT(__ldcg);
CINNABAR_LOAD_HINT(__ldcs);
CINNABAR_LOAD_HINT(__ldcv);
#undef CINNABAR_LOAD_HINT

#define CINNABAR_STORE_HINT(NAME)  \
  template <class T>               \
  void NAME(T* address, T value) { \
    *address = value;              \
  }                                \
  static_assert(true)
CINNABAR_STORE_HINT(__stcg);
CINNABAR_STORE_HINT(__stcs);
CINNABAR_STORE_HINT(__stwb);
CINNABAR_STORE_HINT(__stwt);
#undef CINNABAR_STORE_HINT

// --- Bits.

inline int __popc(unsigned int x) {
  return std::popcount(x);
}
inline int __popcll(unsigned long long x) {
  return std::popcount(x);
}
inline int __clz(int x) {
  return std::countl_zero(static_cast<unsigned int>(x));
}
inline int __clzll(long long x) {
  return std::countl_zero(static_cast<unsigned long long>(x));
}
inline int __ffs(int x) {
  return __builtin_ffs(x);
}
inline int __ffsll(long long x) {
  return __builtin_ffsll(x);
}
inline unsigned int __brev(unsigned int x) {
  unsigned int reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= (x >> bit & 1u) << (31 - bit);
  return reversed;
}
inline unsigned int __umulhi(unsigned int a, unsigned int b) {
  return static_cast<unsigned int>(std::uint64_t{a} * b >> 32);
}
inline int __mulhi(int a, int b) {
  return static_cast<int>(std::int64_t{a} * b >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  __extension__ using Wide = unsigned __int128;
  return static_cast<unsigned long long>(static_cast<Wide>(a) * b >> 64);
}

#define CINNABAR_REINTERPRET(NAME, TO, FROM) \
  inline TO NAME(FROM x) {                   \
    return std::bit_cast<TO>(x);             \
  }                                          \
  static_assert(true)
CINNABAR_REINTERPRET(__float_as_int, int, float);
CINNABAR_REINTERPRET(__int_as_float, float, int);
CINNABAR_REINTERPRET(__float_as_uint, unsigned int, float);
CINNABAR_REINTERPRET(__uint_as_float, float, unsigned int);
CINNABAR_REINTERPRET(__double_as_longlong, long long, double);
CINNABAR_REINTERPRET(__longlong_as_double, double, long long);
#undef CINNABAR_REINTERPRET

// --- Conversions: rd down, ru up, rz towards zero, rn to nearest even.

#define CINNABAR_CONVERT(SUFFIX, ROUND)                             \
  inline int __float2int_##SUFFIX(float x) {                        \
    return cinnabar::emulation::saturating<int>(ROUND(x));          \
  }                                                                 \
  inline unsigned int __float2uint_##SUFFIX(float x) {              \
    return cinnabar::emulation::saturating<unsigned int>(ROUND(x)); \
  }                                                                 \
  inline long long __float2ll_##SUFFIX(float x) {                   \
    return cinnabar::emulation::saturating<long long>(ROUND(x));    \
  }                                                                 \
  inline int __double2int_##SUFFIX(double x) {                      \
    return cinnabar::emulation::saturating<int>(ROUND(x));          \
  }                                                                 \
  inline long long __double2ll_##SUFFIX(double x) {                 \
    return cinnabar::emulation::saturating<long long>(ROUND(x));    \
  }                                                                 \
  static_assert(true)
CINNABAR_CONVERT(rd, std::floor);
CINNABAR_CONVERT(ru, std::ceil);
CINNABAR_CONVERT(rz, std::trunc);
CINNABAR_CONVERT(rn, std::nearbyint);
#undef CINNABAR_CONVERT

inline float __int2float_rn(int x) {
  return static_cast<float>(x);
}
inline float __uint2float_rn(unsigned int x) {
  return static_cast<float>(x);
}
inline float __ll2float_rn(long long x) {
  return static_cast<float>(x);
}
inline double __ll2double_rn(long long x) {
  return static_cast<double>(x);
}
inline float __double2float_rn(double x) {
  return static_cast<float>(x);
}

// --- Arithmetic that rounds once where it says so, and what the C library lacks.

inline float __fadd_rn(float a, float b) {
  return a + b;
}
inline float __fsub_rn(float a, float b) {
  return a - b;
}
inline float __fmul_rn(float a, float b) {
  return a * b;
}
inline float __fdiv_rn(float a, float b) {
  return a / b;
}
inline float __fmaf_rn(float a, float b, float c) {
  return std::fma(a, b, c);
}
inline float __frcp_rn(float x) {
  return 1.0f / x;
}
inline float __fsqrt_rn(float x) {
  return std::sqrt(x);
}
inline double __dadd_rn(double a, double b) {
  return a + b;
}
inline double __dmul_rn(double a, double b) {
  return a * b;
}
inline double __fma_rn(double a, double b, double c) {
  return std::fma(a, b, c);
}
inline float __fdividef(float a, float b) {
  return a / b;
}
inline float __saturatef(float x) {
  return x >= 1.0f ? 1.0f : (x > 0.0f ? x : 0.0f);  // NaN becomes 0
}
inline float rsqrtf(float x) noexcept {
  return static_cast<float>(1.0 / std::sqrt(static_cast<double>(x)));
}
inline double rsqrt(double x) noexcept {
  return 1.0 / std::sqrt(x);
}
inline float sinpif(float x) noexcept {
  return static_cast<float>(std::sin(3.14159265358979323846 * std::fmod(static_cast<double>(x), 2.0)));
}
inline float cospif(float x) noexcept {
  return static_cast<float>(std::cos(3.14159265358979323846 * std::fmod(static_cast<double>(x), 2.0)));
}
inline void sincospif(float x, float* sine, float* cosine) noexcept {
  *sine = sinpif(x);
  *cosine = cospif(x);
}

// The fast approximations, exact here. Macros, because the C library declares functions of these names.
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __sincosf(x, sine, cosine) sincosf(x, sine, cosine)

#define CINNABAR_MIN_MAX(T)   \
  constexpr T min(T a, T b) { \
    return b < a ? b : a;     \
  }                           \
  constexpr T max(T a, T b) { \
    return a < b ? b : a;     \
  }                           \
  static_assert(true)
CINNABAR_MIN_MAX(int);
CINNABAR_MIN_MAX(unsigned int);
CINNABAR_MIN_MAX(long);
CINNABAR_MIN_MAX(unsigned long);
CINNABAR_MIN_MAX(long long);
CINNABAR_MIN_MAX(unsigned long long);
#undef CINNABAR_MIN_MAX
// CUDA's min and max of floating-point numbers return the other operand of a NaN.
inline float min(float a, float b) {
  return std::fmin(a, b);
}
inline float max(float a, float b) {
  return std::fmax(a, b);
}
inline double min(double a, double b) {
  return std::fmin(a, b);
}
inline double max(double a, double b) {
  return std::fmax(a, b);
}

[[noreturn]] inline void __trap() {
  cinnabar::emulation::fail_in_kernel("__trap()");
}
