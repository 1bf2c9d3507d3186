#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <string_view>

#include "engine/host_device.hpp"

namespace cinnabar {

/// Element types a tensor can hold.
enum class DType : std::uint8_t { f32, f64, f16, bf16, i32, i64, u8 };

/// IEEE binary16, stored as its bits; arithmetic happens in float. Conversions round to nearest, ties to
/// even, to infinity from 65520 on; NaN stays NaN and keeps its sign. They have no branches, so loops
/// vectorise.
struct Half {
  std::uint16_t bits = 0;
  Half() = default;
  CINNABAR_HD explicit Half(float value);
  CINNABAR_HD explicit operator float() const;
};

/// bfloat16, stored as its bits; arithmetic happens in float. Rounding as for Half.
struct BFloat16 {
  std::uint16_t bits = 0;
  BFloat16() = default;
  CINNABAR_HD explicit BFloat16(float value);
  CINNABAR_HD explicit operator float() const;
};

std::size_t size_of(DType dtype);
bool is_floating(DType dtype);
std::string_view name_of(DType dtype);
std::ostream& operator<<(std::ostream& out, DType dtype);

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct DTypeOf<Half> {
  static constexpr DType value = DType::f16;
};
template <>
struct DTypeOf<BFloat16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct DTypeOf<std::int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct DTypeOf<std::int64_t> {
  static constexpr DType value = DType::i64;
};
template <>
struct DTypeOf<std::uint8_t> {
  static constexpr DType value = DType::u8;
};

template <class T>
inline constexpr DType dtype_of = DTypeOf<T>::value;

CINNABAR_HD Half::Half(float value) {
  constexpr std::uint32_t kSmallestNormal = 0x38800000u;  // 2^-14, as the bits of a float
  constexpr std::uint32_t kTooLarge = 0x47800000u;        // 2^16
  const std::uint32_t f = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t magnitude = f & 0x7fffffffu;
  const std::uint32_t capped = magnitude < kTooLarge ? magnitude : kTooLarge;
  const std::uint32_t own = capped & 0x7f800000u;
  const std::uint32_t power = own > kSmallestNormal ? own : kSmallestNormal;
  // A float of 2^13 times that power of two has the half's unit as its own, so this sum rounds as wanted and
  // the difference of the bits counts units: 1024 to 2048 of them, fewer where the half is subnormal.
  const std::uint32_t large = power + (13u << 23);
  const float sum = std::bit_cast<float>(capped) + std::bit_cast<float>(large);
  const std::uint32_t units = std::bit_cast<std::uint32_t>(sum) - large;
  const std::uint32_t half = ((power - kSmallestNormal) >> 13) + units;
  bits = static_cast<std::uint16_t>(((f >> 16) & 0x8000u) | (magnitude > 0x7f800000u ? 0x7e00u : half));
}

CINNABAR_HD Half::operator float() const {
  const std::uint32_t sign = (static_cast<std::uint32_t>(bits) & 0x8000u) << 16;
  const std::uint32_t exponent = bits & 0x7c00u;
  // The exponent's bias is 15 in a half and 127 in a float.
  const std::uint32_t normal = ((bits & 0x7fffu) << 13) + (112u << 23);
  const std::uint32_t subnormal =
      std::bit_cast<std::uint32_t>(std::bit_cast<float>(normal + (1u << 23)) - 0x1p-14f);
  const std::uint32_t endless = normal + (112u << 23);  // infinity or NaN
  const std::uint32_t magnitude = exponent == 0x7c00u ? endless : exponent == 0 ? subnormal : normal;
  return std::bit_cast<float>(sign | magnitude);
}

CINNABAR_HD BFloat16::BFloat16(float value) {
  const std::uint32_t f = std::bit_cast<std::uint32_t>(value);
  const bool nan = (f & 0x7fffffffu) > 0x7f800000u;
  const std::uint32_t rounded = f + 0x7fffu + ((f >> 16) & 1u);
  bits = static_cast<std::uint16_t>(nan ? (f >> 16) | 0x40u : rounded >> 16);
}

CINNABAR_HD BFloat16::operator float() const {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

}  // namespace cinnabar
