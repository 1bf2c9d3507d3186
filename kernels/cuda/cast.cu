// Conversion between f32, f16 and bf16.
// Work split: a thread converts eight neighbouring elements, 16 bytes of the smaller type and two times 16 of
// f32; one element where a pointer is not aligned to that. The conversions are the CPU's integer and float
// arithmetic (engine/dtype.hpp), about 12 instructions an element, so that both devices give the same bits,
// NaN included. Shared memory: none. Launch: 256 threads. Limiting resource: memory bandwidth (4 or 6 bytes
// an element).
#include "kernels/cast.hpp"

#include "kernels/cuda/launch.cuh"

namespace cinnabar::cuda {

namespace {

constexpr const char* kOp = "cast";
constexpr int kBlock = 256;
constexpr int kVector = 8;

/// What a thread loads or stores: with a power of two of bytes up to 16, one instruction.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount < 16 ? sizeof(T) * kCount : 16) Pack {
  T element[kCount];
};

/// A thread owns kCount neighbouring elements; the last thread takes the rest one by one.
// budget: <=40 registers, 0 B shared, 256 threads, occupancy >= 0.75
template <class From, class To, int kCount>
__global__ void __launch_bounds__(kBlock) cast_pack_kernel(const From* from, To* to, std::int64_t count) {
  const std::int64_t first = thread_index() * kCount;
  if (first + kCount <= count) {
    const auto in = *reinterpret_cast<const Pack<From, kCount>*>(from + first);
    Pack<To, kCount> out;
#pragma unroll
    for (int k = 0; k < kCount; ++k) out.element[k] = cast_element<To>(in.element[k]);
    *reinterpret_cast<Pack<To, kCount>*>(to + first) = out;
    return;
  }
  for (std::int64_t i = first; i < count; ++i) to[i] = cast_element<To>(from[i]);
}

template <class T>
bool is_aligned(const T* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % alignof(Pack<T, kVector>) == 0;
}

/// Calls fn with an element of a type that CUDA converts.
template <class Function>
void dispatch(DType dtype, const Function& fn) {
  dispatch_stored(kOp, dtype, [&](auto element) {
    if constexpr (std::is_same_v<decltype(element), double>) {
      fail(kOp, "f64 is converted on the CPU only");
    } else {
      fn(element);
    }
  });
}

void convert(const Tensor& from, Tensor& to) {
  check_cast(from, to);
  if (from.numel() == 0) return;
  dispatch(from.dtype(), [&](auto from_element) {
    dispatch(to.dtype(), [&](auto to_element) {
      using From = decltype(from_element);
      using To = decltype(to_element);
      const From* const in = from.data<From>();
      To* const out = to.data<To>();
      const std::int64_t count = from.numel();
      if constexpr (std::is_same_v<From, To>) {
        copy_bytes(out, to.device(), in, from.device(), from.bytes());
      } else if (is_aligned(in) && is_aligned(out)) {
        launch(kOp, cast_pack_kernel<From, To, kVector>, cover((count + kVector - 1) / kVector, kBlock),
               from.device(), in, out, count);
      } else {
        launch(kOp, cast_pack_kernel<From, To, 1>, cover(count, kBlock), from.device(), in, out, count);
      }
    });
  });
}

}  // namespace

extern const Cast cast;
const Cast cast{convert};

}  // namespace cinnabar::cuda
