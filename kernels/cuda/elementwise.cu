// Pointwise arithmetic.
// Work split: contiguous operands take the flat path, four elements a thread through 16-byte loads and
// stores; broadcast operands take the strided path, one element a thread, offsets by 32-bit division per axis
// left after merging (kernels/strided.hpp). Shared memory: none. Launch: 256 threads, as many blocks as
// elements need. Limiting resource: memory bandwidth (8 to 16 bytes an element); the op is a launch argument,
// so its switch is uniform over the grid and costs a few instructions an element.
#include "kernels/elementwise.hpp"

#include "kernels/cuda/launch.cuh"
#include "kernels/elementwise_checks.hpp"
#include "kernels/elementwise_math.hpp"
#include "kernels/strided.hpp"

namespace cinnabar::cuda {

namespace {

constexpr int kBlock = 256;
constexpr int kVector = 4;

struct UnaryFormula {
  Unary op;
  float a, b;
  __device__ float operator()(float x) const { return unary_value<float>(op, x, a, b); }
};

struct UnaryGradient {
  Unary op;
  float a, b;
  __device__ float operator()(float grad, float saved) const {
    return grad * unary_slope<float>(op, saved, a, b);
  }
};

struct BinaryFormula {
  Binary op;
  __device__ float operator()(float x, float y) const { return binary_value<float>(op, x, y); }
};

struct BinaryGradient {
  Binary op;
  int operand;
  __device__ float operator()(float grad, float x, float y) const {
    return binary_gradient<float>(op, operand, grad, x, y);
  }
};

struct Select {
  __device__ float operator()(float condition, float x, float y) const { return condition != 0.0f ? x : y; }
};

struct Axpy {
  float a;
  __device__ float operator()(float x, float target) const { return target + a * x; }
};

template <int N>
struct Operands {
  const float* data[N];
};

template <int N, class Formula>
__device__ __forceinline__ float apply(const Formula& formula, const float (&value)[N]) {
  if constexpr (N == 1) {
    return formula(value[0]);
  } else if constexpr (N == 2) {
    return formula(value[0], value[1]);
  } else {
    return formula(value[0], value[1], value[2]);
  }
}

/// A thread owns four neighbouring elements; the last thread takes the rest one by one.
// budget: <=32 registers, 0 B shared, 256 threads, occupancy >= 1.0
template <int N, class Formula>
__global__ void elementwise_flat_kernel(Formula formula, Operands<N> in, float* out, std::int64_t count) {
  const std::int64_t first = thread_index() * kVector;
  if (first + kVector <= count) {
    float4 loaded[N];
    for (int n = 0; n < N; ++n) loaded[n] = *reinterpret_cast<const float4*>(in.data[n] + first);
    float value[N];
    float4 result;
    for (int n = 0; n < N; ++n) value[n] = loaded[n].x;
    result.x = apply<N>(formula, value);
    for (int n = 0; n < N; ++n) value[n] = loaded[n].y;
    result.y = apply<N>(formula, value);
    for (int n = 0; n < N; ++n) value[n] = loaded[n].z;
    result.z = apply<N>(formula, value);
    for (int n = 0; n < N; ++n) value[n] = loaded[n].w;
    result.w = apply<N>(formula, value);
    *reinterpret_cast<float4*>(out + first) = result;
    return;
  }
  for (std::int64_t i = first; i < count; ++i) {
    float value[N];
    for (int n = 0; n < N; ++n) value[n] = in.data[n][i];
    out[i] = apply<N>(formula, value);
  }
}

/// A thread owns one element of the output.
// budget: <=40 registers, 0 B shared, 256 threads, occupancy >= 0.75
template <class Index, int N, class Formula>
__global__ void elementwise_strided_kernel(Formula formula, StridedLoop<N> loop, Operands<N> in, float* out) {
  const std::int64_t i = thread_index();
  if (i >= loop.numel) return;
  std::int64_t offset[N];
  loop.template offsets<Index>(i, offset);
  float value[N];
  for (int n = 0; n < N; ++n) value[n] = in.data[n][offset[n]];
  out[i] = apply<N>(formula, value);
}

bool is_vector_aligned(const void* pointer) {
  return reinterpret_cast<std::uintptr_t>(pointer) % sizeof(float4) == 0;
}

template <int N, class Formula>
void run(const Formula& formula, const StridedLoop<N>& loop, const Operands<N>& in, Tensor& output) {
  if (loop.numel == 0) return;
  float* out = output.data<float>();
  bool flat = loop.is_contiguous() && is_vector_aligned(out);
  for (const float* data : in.data) flat = flat && is_vector_aligned(data);
  if (flat) {
    const std::int64_t threads = (loop.numel + kVector - 1) / kVector;
    launch("elementwise", elementwise_flat_kernel<N, Formula>, cover(threads, kBlock), output.device(),
           formula, in, out, loop.numel);
  } else if (loop.numel <= std::numeric_limits<std::int32_t>::max()) {
    launch("elementwise", elementwise_strided_kernel<std::uint32_t, N, Formula>, cover(loop.numel, kBlock),
           output.device(), formula, loop, in, out);
  } else {
    launch("elementwise", elementwise_strided_kernel<std::uint64_t, N, Formula>, cover(loop.numel, kBlock),
           output.device(), formula, loop, in, out);
  }
}

void unary(Unary op, const Tensor& x, double a, double b, Tensor& y) {
  check_unary(x, y);
  require_dtype("elementwise", x, DType::f32);
  run<1>(UnaryFormula{op, static_cast<float>(a), static_cast<float>(b)},
         broadcast_loop<1>("elementwise", y.shape(), {x.shape()}), {{x.data<float>()}}, y);
}

void unary_backward(Unary op, const Tensor& grad_y, const Tensor& saved, double a, double b, Tensor& grad_x) {
  check_unary(grad_y, grad_x);
  check_unary(saved, grad_x);
  require_dtype("elementwise", grad_y, DType::f32);
  run<2>(UnaryGradient{op, static_cast<float>(a), static_cast<float>(b)},
         broadcast_loop<2>("elementwise", grad_x.shape(), {grad_y.shape(), saved.shape()}),
         {{grad_y.data<float>(), saved.data<float>()}}, grad_x);
}

void binary(Binary op, const Tensor& x, const Tensor& y, Tensor& z) {
  check_binary(x, y, z);
  require_dtype("elementwise", x, DType::f32);
  run<2>(BinaryFormula{op}, broadcast_loop<2>("elementwise", z.shape(), {x.shape(), y.shape()}),
         {{x.data<float>(), y.data<float>()}}, z);
}

void binary_backward(Binary op, const Tensor& grad_z, const Tensor& x, const Tensor& y, int operand,
                     Tensor& grad) {
  check_binary(x, y, grad);
  check_unary(grad_z, grad);
  require_dtype("elementwise", x, DType::f32);
  run<3>(BinaryGradient{op, operand},
         broadcast_loop<3>("elementwise", grad.shape(), {grad_z.shape(), x.shape(), y.shape()}),
         {{grad_z.data<float>(), x.data<float>(), y.data<float>()}}, grad);
}

void select(const Tensor& condition, const Tensor& x, const Tensor& y, Tensor& output) {
  check_select(condition, x, y, output);
  require_dtype("elementwise", x, DType::f32);
  run<3>(Select{},
         broadcast_loop<3>("elementwise", output.shape(), {condition.shape(), x.shape(), y.shape()}),
         {{condition.data<float>(), x.data<float>(), y.data<float>()}}, output);
}

void axpy(double a, const Tensor& x, Tensor& target) {
  check_unary(x, target);
  require_dtype("elementwise", x, DType::f32);
  run<2>(Axpy{static_cast<float>(a)},
         broadcast_loop<2>("elementwise", target.shape(), {x.shape(), target.shape()}),
         {{x.data<float>(), target.data<float>()}}, target);
}

}  // namespace

extern const Elementwise elementwise;
const Elementwise elementwise{unary, unary_backward, binary, binary_backward, select, axpy};

}  // namespace cinnabar::cuda
