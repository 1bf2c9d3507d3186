// A task owns a part of one row, that is of one channel of one image. The sums of the gradients of bias and
// weight are kept for every task in f64 and added in order.

#include "kernels/epilogue.hpp"

#include <algorithm>
#include <vector>

#include "kernels/cpu/epilogue_row.hpp"
#include "kernels/parallel.hpp"

namespace cinnabar::cpu {

namespace {

constexpr std::int64_t kPart = 1 << 14;  // elements of a row in a task

/// Calls body(row, part, first, count) for the parts of all rows, `first` counted from the start of the row.
template <class Body>
void for_each_part(const EpilogueShape& shape, const Body& body) {
  const std::int64_t parts = (shape.inner + kPart - 1) / kPart;
  const std::int64_t rows = shape.batch * shape.channels;
  parallel_for(rows * parts, std::max<std::int64_t>(1, kPart / std::max<std::int64_t>(1, shape.inner)),
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t task = begin; task < end; ++task) {
                   const std::int64_t first = task % parts * kPart;
                   body(task / parts, task % parts, first, std::min(kPart, shape.inner - first));
                 }
               });
}

void forward(const Tensor& x, const Epilogue& epilogue, Tensor& y) {
  const EpilogueShape shape = epilogue_shape(x, epilogue, y);
  dispatch_floating("epilogue", y.dtype(), [&](auto element) {
    using T = decltype(element);
    const EpilogueMath<T> math = epilogue_math<T>(epilogue);
    const T* const in = x.data<T>();
    T* const out = y.data<T>();
    for_each_part(shape, [&](std::int64_t row, std::int64_t, std::int64_t first, std::int64_t count) {
      const std::int64_t index = row * shape.inner + first;
      epilogue_row(math, row % shape.channels, index, count, in + index, out + index);
    });
  });
}

struct Sums {
  double bias = 0.0;
  double weight = 0.0;
};

/// Gradients of `count` elements from those that dropout left. `saved` is null without an activation.
template <class T, Activation kActivation>
Sums activation_backward(T slope, std::int64_t count, const T* kept, const T* saved, T* out) {
  double bias = 0.0, weight = 0.0;
#pragma omp simd reduction(+ : bias, weight)
  for (std::int64_t i = 0; i < count; ++i) {
    const T z = kActivation == Activation::none ? T(0) : saved[i];
    const T value = activation_gradient(kActivation, kept[i], z, slope);
    const T product = z > T(0) ? T(0) : kept[i] * z;
    weight += static_cast<double>(product);
    bias += static_cast<double>(value);
    out[i] = value;
  }
  return {bias, weight};
}

template <class T>
Sums activation_backward(const EpilogueMath<T>& math, T slope, std::int64_t count, const T* kept,
                         const T* saved, T* out) {
  switch (math.activation) {
    case Activation::none:
      return activation_backward<T, Activation::none>(slope, count, kept, saved, out);
    case Activation::relu:
      return activation_backward<T, Activation::relu>(slope, count, kept, saved, out);
    default:
      return activation_backward<T, Activation::prelu>(slope, count, kept, saved, out);
  }
}

/// Gradients of one part of a row; `grad` may be `out`.
template <class T>
Sums backward_part(const EpilogueMath<T>& math, std::int64_t channel, std::int64_t index, std::int64_t count,
                   const T* grad, const T* saved, T* out) {
  const T slope = math.slope_of(channel);
  if (!math.drops) return activation_backward(math, slope, count, grad, saved, out);
  Sums sums;
  for_each_uniform_block(
      math.sequence, index, index + count, [&](std::int64_t first, std::int64_t length, const float* unit) {
        T kept[kUniformBlock];
        const std::int64_t at = first - index;
        for (std::int64_t i = 0; i < length; ++i) {
          kept[i] = math.mask.apply(unit[i], grad[at + i]);
        }
        const Sums part =
            activation_backward(math, slope, length, kept, saved == nullptr ? nullptr : saved + at, out + at);
        sums.bias += part.bias;
        sums.weight += part.weight;
      });
  return sums;
}

void backward(const Tensor& grad_y, const Tensor& saved, const Epilogue& epilogue, Tensor& grad_x,
              Tensor& grad_bias, Tensor& grad_weight) {
  const EpilogueShape shape =
      epilogue_backward_shape(grad_y, saved, epilogue, grad_x, grad_bias, grad_weight);
  dispatch_floating("epilogue", grad_y.dtype(), [&](auto element) {
    using T = decltype(element);
    const EpilogueMath<T> math = epilogue_math<T>(epilogue);
    const T* const grad = grad_y.data<T>();
    const T* const z = epilogue.activation == Activation::none ? nullptr : saved.data<T>();
    T* const out = grad_x.data<T>();
    const std::int64_t parts = (shape.inner + kPart - 1) / kPart;
    std::vector<Sums> sums(static_cast<std::size_t>(shape.batch * shape.channels * parts));
    for_each_part(shape, [&](std::int64_t row, std::int64_t part, std::int64_t first, std::int64_t count) {
      const std::int64_t index = row * shape.inner + first;
      sums[static_cast<std::size_t>(row * parts + part)] =
          backward_part(math, row % shape.channels, index, count, grad + index,
                        z == nullptr ? nullptr : z + index, out + index);
    });
    std::vector<Sums> totals(static_cast<std::size_t>(shape.channels));
    for (std::size_t i = 0; i < sums.size(); ++i) {
      Sums& total = totals[i / static_cast<std::size_t>(parts) % totals.size()];
      total.bias += sums[i].bias;
      total.weight += sums[i].weight;
    }
    if (grad_bias.defined()) {
      T* to = grad_bias.data<T>();
      for (const Sums& total : totals) *to++ = static_cast<T>(total.bias);
    }
    if (!grad_weight.defined()) return;
    T* to = grad_weight.data<T>();
    double all = 0.0;
    for (std::size_t c = 0; c < totals.size(); ++c) {
      all += totals[c].weight;
      if (math.weight_stride == 1) to[c] = static_cast<T>(totals[c].weight);
    }
    if (math.weight_stride == 0) *to = static_cast<T>(all);
  });
}

}  // namespace

extern const EpilogueKernels epilogue;
const EpilogueKernels epilogue{forward, backward};

}  // namespace cinnabar::cpu
