#pragma once

#include <bit>
#include <string_view>

#include "kernels/conv3d.hpp"

namespace cinnabar {

/// "fp32" and so on. Parsing throws InputError on a name that is none of them.
std::string_view name_of(Conv3dPrecision precision);
Conv3dPrecision parse_conv3d_precision(std::string_view name);

/// A float of 10 bits of mantissa, stored as the float it is; rounding as for Half.
struct TensorFloat32 {
  std::uint32_t bits = 0;
  TensorFloat32() = default;
  CINNABAR_HD explicit TensorFloat32(float value) {
    constexpr std::uint32_t kDropped = (1u << 13) - 1;  // the last bits of a float
    const std::uint32_t f = std::bit_cast<std::uint32_t>(value);
    const bool nan = (f & 0x7fffffffu) > 0x7f800000u;
    const std::uint32_t rounded = f + (kDropped >> 1) + ((f >> 13) & 1u);
    bits = (nan ? f | 0x400000u : rounded) & ~kDropped;
  }
  CINNABAR_HD explicit operator float() const { return std::bit_cast<float>(bits); }
};

/// to[i] = from[i] rounded to a precision, as an operand of a product; f32, to nearest with ties to even.
/// Shapes and devices are the same. Assigns; every element is on its own, with the same bits on both devices.
struct RoundOperand {
  void (*round)(const Tensor& from, Conv3dPrecision precision, Tensor& to);
};

CINNABAR_OP(RoundOperand, round_operand);

/// Checks the arguments of `round`. Throws Error.
void check_round_operand(const Tensor& from, const Tensor& to);

/// Calls fn with a value-initialised element of what a precision rounds to.
template <class Function>
void dispatch_operand(Conv3dPrecision precision, Function&& fn) {
  switch (precision) {
    case Conv3dPrecision::fp32:
      return fn(float{});
    case Conv3dPrecision::tf32:
      return fn(TensorFloat32{});
    case Conv3dPrecision::fp16:
      return fn(Half{});
    case Conv3dPrecision::bf16:
      return fn(BFloat16{});
  }
}

/// The operand of a product: the tensor itself in fp32, else a rounded copy.
Tensor rounded_operand(const Tensor& operand, Conv3dPrecision precision);

}  // namespace cinnabar
