#pragma once

#include <type_traits>

#include "kernels/op.hpp"

namespace cinnabar {

/// Conversion between the floating types a tensor can be stored in.
///
/// to[i] = from[i] for tensors of one shape and device, rounded to nearest with ties to even; beyond the
/// target's range it becomes infinite, and NaN stays NaN. f16, bf16, f32 and f64 in every pair on the CPU,
/// f16, bf16 and f32 on CUDA; to and from f16 and bf16 an f64 goes through f32. `to` is assigned; every
/// element is on its own: deterministic, and the same bits on both devices.
struct Cast {
  void (*convert)(const Tensor& from, Tensor& to);
};

CINNABAR_OP(Cast, cast);

template <class T>
inline constexpr bool is_half_size = std::is_same_v<T, Half> || std::is_same_v<T, BFloat16>;

template <class To, class From>
CINNABAR_HD To cast_element(From value) {
  if constexpr (std::is_same_v<To, From>) {
    return value;
  } else if constexpr (is_half_size<To> || is_half_size<From>) {
    return static_cast<To>(static_cast<float>(value));
  } else {
    return static_cast<To>(value);
  }
}

/// Calls fn with a value-initialised element of a floating dtype; throws on any other.
template <class Function>
decltype(auto) dispatch_stored(const char* op, DType dtype, Function&& fn) {
  switch (dtype) {
    case DType::f16:
      return fn(Half{});
    case DType::bf16:
      return fn(BFloat16{});
    default:
      return dispatch_floating(op, dtype, fn);
  }
}

/// Checks that the tensors fit. Throws Error.
inline void check_cast(const Tensor& from, const Tensor& to) {
  constexpr const char* kOp = "cast";
  CINNABAR_CHECK(is_floating(from.dtype()) && is_floating(to.dtype()), kOp, "converts floating types, not ",
                 from, " to ", to);
  require_same_shape(kOp, from, to);
  require_same_device(kOp, from, to);
}

}  // namespace cinnabar
