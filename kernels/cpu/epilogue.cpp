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
constexpr std::int64_t kTile = 256;      // elements whose kept gradients fit in the first cache

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

/// Gradients of one part of a row; `grad` may be `out`, `saved` is null without an activation.
template <class T>
Sums backward_part(const EpilogueMath<T>& math, std::int64_t channel, std::int64_t index, std::int64_t count,
                   const T* grad, const T* saved, T* out) {
  const T slope = math.slope_of(channel);
  Sums sums;
  const auto tile = [&](const T* kept, std::int64_t at, std::int64_t length) {
    double bias = 0.0, weight = 0.0;
    for (std::int64_t i = 0; i < length; ++i) {
      const T z = saved == nullptr ? T(0) : saved[at + i];
      const T value = activation_gradient(math.activation, kept[i], z, slope);
      weight += z > T(0) ? 0.0 : static_cast<double>(kept[i] * z);
      bias += static_cast<double>(value);
      out[at + i] = value;
    }
    sums.bias += bias;
    sums.weight += weight;
  };
  if (!math.mask.drops) {
    for (std::int64_t at = 0; at < count; at += kTile) tile(grad + at, at, std::min(kTile, count - at));
    return sums;
  }
  for_each_uniform_block(math.mask.sequence, index, index + count,
                         [&](std::int64_t first, std::int64_t length, const float* unit) {
                           T kept[kTile];
                           const std::int64_t at = first - index;
                           for (std::int64_t i = 0; i < length; ++i) {
                             kept[i] = math.mask.apply(unit[i], grad[at + i]);
                           }
                           tile(kept, at, length);
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
