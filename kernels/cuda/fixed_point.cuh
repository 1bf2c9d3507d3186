#pragma once

// Sums that do not depend on the order of their terms: every term becomes a 64-bit integer multiple of one
// power-of-two unit, and integer addition is associative. The unit follows from the largest |term| and from
// how many terms can meet in one sum, so that no sum can overflow.
//
// A float goes to 64 bits in two 32-bit conversions (about 16 + 30 bits): conversions to 64-bit integers run
// at 1/32 to 1/64 of the float rate on consumer GPUs.

#include "kernels/cuda/launch.cuh"

namespace cinnabar::cuda {

/// The unit is 2^(exponent of the largest |term| - bits).
struct FixedPointScale {
  int bits;              ///< a term of the largest size becomes about 2^bits
  const unsigned* peak;  ///< on the device: bit pattern of the largest |term|, from find_peak
};

/// Bits that leave room for `terms` terms of the largest size in one sum.
inline int fixed_point_bits(std::int64_t terms) {
  int headroom = 0;
  while ((std::int64_t{1} << headroom) < terms) ++headroom;
  CINNABAR_CHECK(headroom <= 40, "fixed_point", terms, " terms in one sum are too many");
  return headroom < 16 ? 46 : 62 - headroom;
}

/// Exponent e with |term| < 2^e, kept where both scale factors are normal numbers.
__device__ __forceinline__ int peak_exponent(unsigned peak_bits) {
  const int exponent = static_cast<int>(peak_bits >> 23) - 126;
  return exponent < -80 ? -80 : exponent;
}

__device__ __forceinline__ bool peak_is_finite(unsigned peak_bits) {
  return peak_bits < 0x7F800000u;
}

/// Factor to multiply terms with before to_fixed_point.
__device__ __forceinline__ float fixed_point_factor(FixedPointScale scale, unsigned peak_bits) {
  return ldexpf(1.0f, scale.bits - 16 - peak_exponent(peak_bits));
}

__device__ __forceinline__ long long to_fixed_point(float scaled_term) {
  const int high = __float2int_rn(scaled_term);
  const int low = __float2int_rn((scaled_term - static_cast<float>(high)) * 65536.0f);
  return static_cast<long long>(high) * 65536 + low;
}

__device__ __forceinline__ void add_fixed_point(long long* sum, long long term) {
  atomicAdd(reinterpret_cast<unsigned long long*>(sum), static_cast<unsigned long long>(term));
}

// budget: <=48 registers, 0 B shared, 256 threads, occupancy >= 1.0
template <int kBlock>
__global__ void peak_grid_stride_kernel(const float* values, std::int64_t count, unsigned* peak) {
  unsigned largest = 0;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kBlock;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kBlock + threadIdx.x; i < count;
       i += stride) {
    // Bit patterns of non-negative floats are ordered like their values, infinity and NaN above all.
    const unsigned bits = __float_as_uint(values[i]) & 0x7FFFFFFFu;
    largest = bits > largest ? bits : largest;
  }
  for (int offset = 16; offset > 0; offset /= 2) {
    const unsigned other = __shfl_down_sync(0xFFFFFFFFu, largest, offset);
    largest = other > largest ? other : largest;
  }
  if (threadIdx.x % 32 == 0) atomicMax(peak, largest);
}

// budget: <=16 registers, 0 B shared, 256 threads, occupancy >= 1.0
template <int kBlock>
__global__ void __launch_bounds__(kBlock)
    fixed_point_to_float_kernel(const long long* sums, FixedPointScale scale, std::int64_t count,
                                float* values) {
  const std::int64_t i = thread_index();
  if (i >= count) return;
  const unsigned peak_bits = *scale.peak;
  values[i] = peak_is_finite(peak_bits)
                  ? ldexpf(static_cast<float>(sums[i]), peak_exponent(peak_bits) - scale.bits)
                  : nanf("");
}

/// A one-element tensor with the bit pattern of the largest |value|.
inline Tensor find_peak(const char* op, const Tensor& values) {
  Tensor peak = Tensor::zeros({1}, DType::i32, values.device());
  constexpr int kBlock = 256;
  LaunchShape shape = cover(values.numel(), kBlock);
  if (shape.grid.x > 2048) shape.grid.x = 2048;
  launch(op, peak_grid_stride_kernel<kBlock>, shape, values.device(), values.data<float>(), values.numel(),
         reinterpret_cast<unsigned*>(peak.data<std::int32_t>()));
  return peak;
}

/// Assigns the floats nearest to the sums.
inline void fixed_point_to_float(const char* op, const Tensor& sums, FixedPointScale scale, Tensor& values) {
  launch(op, fixed_point_to_float_kernel<256>, cover(values.numel(), 256), values.device(),
         reinterpret_cast<const long long*>(sums.data<std::int64_t>()), scale, values.numel(),
         values.data<float>());
}

}  // namespace cinnabar::cuda
