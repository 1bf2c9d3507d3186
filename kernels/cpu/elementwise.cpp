#include "kernels/elementwise.hpp"

#include <type_traits>

#include "kernels/elementwise_checks.hpp"
#include "kernels/elementwise_math.hpp"
#include "kernels/parallel.hpp"
#include "kernels/strided.hpp"

namespace cinnabar::cpu {

namespace {

constexpr std::int64_t kGrain = 1 << 15;  // elements a task: 128 KiB of f32, well above OpenMP's overhead

template <auto op>
using Constant = std::integral_constant<decltype(op), op>;

/// Calls fn with the op as a compile-time constant, so that each loop holds one formula and vectorises.
template <class Function>
void with_constant(Unary op, const Function& fn) {
  switch (op) {
#define CINNABAR_CASE(NAME) \
  case Unary::NAME:         \
    return fn(Constant<Unary::NAME>{});
    CINNABAR_CASE(affine)
    CINNABAR_CASE(exp)
    CINNABAR_CASE(expm1)
    CINNABAR_CASE(log)
    CINNABAR_CASE(log1p)
    CINNABAR_CASE(sqrt)
    CINNABAR_CASE(rsqrt)
    CINNABAR_CASE(reciprocal)
    CINNABAR_CASE(abs)
    CINNABAR_CASE(square)
    CINNABAR_CASE(pow)
    CINNABAR_CASE(sin)
    CINNABAR_CASE(cos)
    CINNABAR_CASE(tanh)
    CINNABAR_CASE(sigmoid)
    CINNABAR_CASE(softplus)
    CINNABAR_CASE(relu)
    CINNABAR_CASE(leaky_relu)
    CINNABAR_CASE(elu)
    CINNABAR_CASE(clamp)
#undef CINNABAR_CASE
  }
}

template <class Function>
void with_constant(Binary op, const Function& fn) {
  switch (op) {
#define CINNABAR_CASE(NAME) \
  case Binary::NAME:        \
    return fn(Constant<Binary::NAME>{});
    CINNABAR_CASE(add)
    CINNABAR_CASE(sub)
    CINNABAR_CASE(mul)
    CINNABAR_CASE(div)
    CINNABAR_CASE(pow)
    CINNABAR_CASE(maximum)
    CINNABAR_CASE(minimum)
    CINNABAR_CASE(prelu)
    CINNABAR_CASE(greater)
    CINNABAR_CASE(greater_equal)
    CINNABAR_CASE(equal)
#undef CINNABAR_CASE
  }
}

/// output[i] = formula(x[i], y[i]) over broadcast operands. The three inner loops let the compiler see the
/// strides that matter: both contiguous, or one of them repeated.
template <class T, class Formula>
void binary_loop(const StridedLoop<2>& loop, const T* x, const T* y, T* output, const Formula& formula) {
  const std::int64_t step_x = loop.rank == 0 ? 1 : loop.stride[loop.rank - 1][0];
  const std::int64_t step_y = loop.rank == 0 ? 1 : loop.stride[loop.rank - 1][1];
  parallel_for(loop.numel, kGrain, [&](std::int64_t first, std::int64_t last) {
    for_each_run(loop, first, last, [&](std::int64_t start, std::int64_t count, const std::int64_t(&at)[2]) {
      T* out = output + start;
      const T* p = x + at[0];
      const T* q = y + at[1];
      if (step_x == 1 && step_y == 1) {
        for (std::int64_t i = 0; i < count; ++i) out[i] = formula(p[i], q[i], start + i);
      } else if (step_x == 1 && step_y == 0) {
        for (std::int64_t i = 0; i < count; ++i) out[i] = formula(p[i], *q, start + i);
      } else if (step_x == 0 && step_y == 1) {
        for (std::int64_t i = 0; i < count; ++i) out[i] = formula(*p, q[i], start + i);
      } else {
        for (std::int64_t i = 0; i < count; ++i) out[i] = formula(p[i * step_x], q[i * step_y], start + i);
      }
    });
  });
}

void unary(Unary op, const Tensor& x, double a, double b, Tensor& y) {
  check_unary(x, y);
  dispatch_floating("elementwise", x.dtype(), [&](auto element) {
    using T = decltype(element);
    const T* in = x.data<T>();
    T* out = y.data<T>();
    const T ta = static_cast<T>(a);
    const T tb = static_cast<T>(b);
    with_constant(op, [&](auto constant) {
      parallel_for(x.numel(), kGrain, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t i = first; i < last; ++i)
          out[i] = unary_value<T>(decltype(constant)::value, in[i], ta, tb);
      });
    });
  });
}

void unary_backward(Unary op, const Tensor& grad_y, const Tensor& saved, double a, double b, Tensor& grad_x) {
  check_unary(grad_y, grad_x);
  check_unary(saved, grad_x);
  dispatch_floating("elementwise", grad_y.dtype(), [&](auto element) {
    using T = decltype(element);
    const T* grad = grad_y.data<T>();
    const T* kept = saved.data<T>();
    T* out = grad_x.data<T>();
    const T ta = static_cast<T>(a);
    const T tb = static_cast<T>(b);
    with_constant(op, [&](auto constant) {
      parallel_for(grad_y.numel(), kGrain, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t i = first; i < last; ++i)
          out[i] = grad[i] * unary_slope<T>(decltype(constant)::value, kept[i], ta, tb);
      });
    });
  });
}

void binary(Binary op, const Tensor& x, const Tensor& y, Tensor& z) {
  check_binary(x, y, z);
  const auto loop = broadcast_loop<2>("elementwise", z.shape(), {x.shape(), y.shape()});
  dispatch_floating("elementwise", x.dtype(), [&](auto element) {
    using T = decltype(element);
    with_constant(op, [&](auto constant) {
      binary_loop<T>(loop, x.data<T>(), y.data<T>(), z.data<T>(),
                     [](T p, T q, std::int64_t) { return binary_value<T>(decltype(constant)::value, p, q); });
    });
  });
}

void binary_backward(Binary op, const Tensor& grad_z, const Tensor& x, const Tensor& y, int operand,
                     Tensor& grad) {
  check_binary(x, y, grad);
  check_unary(grad_z, grad);
  const auto loop = broadcast_loop<2>("elementwise", grad.shape(), {x.shape(), y.shape()});
  dispatch_floating("elementwise", x.dtype(), [&](auto element) {
    using T = decltype(element);
    const T* incoming = grad_z.data<T>();
    with_constant(op, [&](auto constant) {
      binary_loop<T>(loop, x.data<T>(), y.data<T>(), grad.data<T>(), [=](T p, T q, std::int64_t i) {
        return binary_gradient<T>(decltype(constant)::value, operand, incoming[i], p, q);
      });
    });
  });
}

void select(const Tensor& condition, const Tensor& x, const Tensor& y, Tensor& output) {
  check_select(condition, x, y, output);
  const auto loop =
      broadcast_loop<3>("elementwise", output.shape(), {condition.shape(), x.shape(), y.shape()});
  dispatch_floating("elementwise", x.dtype(), [&](auto element) {
    using T = decltype(element);
    const T* chooser = condition.data<T>();
    const T* p = x.data<T>();
    const T* q = y.data<T>();
    T* out = output.data<T>();
    const std::int64_t* step = loop.stride[loop.rank == 0 ? 0 : loop.rank - 1];
    parallel_for(loop.numel, kGrain, [&](std::int64_t first, std::int64_t last) {
      for_each_run(
          loop, first, last, [&](std::int64_t start, std::int64_t count, const std::int64_t(&at)[3]) {
            for (std::int64_t i = 0; i < count; ++i) {
              out[start + i] =
                  chooser[at[0] + i * step[0]] != T(0) ? p[at[1] + i * step[1]] : q[at[2] + i * step[2]];
            }
          });
    });
  });
}

void axpy(double a, const Tensor& x, Tensor& target) {
  check_unary(x, target);
  dispatch_floating("elementwise", x.dtype(), [&](auto element) {
    using T = decltype(element);
    const T* in = x.data<T>();
    T* out = target.data<T>();
    const T factor = static_cast<T>(a);
    parallel_for(x.numel(), kGrain, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) out[i] += factor * in[i];
    });
  });
}

}  // namespace

extern const Elementwise elementwise;
const Elementwise elementwise{unary, unary_backward, binary, binary_backward, select, axpy};

}  // namespace cinnabar::cpu
