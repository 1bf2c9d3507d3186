#include "kernels/pool3d.hpp"

#include <algorithm>
#include <limits>

#include "kernels/parallel.hpp"

namespace cinnabar::cpu {

namespace {

constexpr const char* kOp = "pool3d";
constexpr std::int64_t kGrain = 1 << 12;  // output voxels a task

/// Positions of a window inside the image along one axis: first, first + dilation, ... below end.
struct Range {
  std::int32_t first, end;
};

Range inside(const PoolAxis& axis, std::int32_t o) {
  const std::int32_t start = axis.start(o);
  const std::int32_t skipped = start < 0 ? (-start + axis.dilation - 1) / axis.dilation : 0;
  return {start + skipped * axis.dilation, std::min(axis.in, start + axis.dilation * (axis.kernel - 1) + 1)};
}

/// Calls row(image, d, h) for every row of the output.
template <class Row>
void for_each_output_row(const PoolShape& shape, const Row& row) {
  const std::int64_t depth = shape.axis[0].out;
  const std::int64_t height = shape.axis[1].out;
  const std::int64_t grain = std::max<std::int64_t>(1, kGrain / shape.axis[2].out);
  parallel_for(shape.images * depth * height, grain, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t r = first; r < last; ++r) {
      row(r / (depth * height), static_cast<std::int32_t>(r / height % depth),
          static_cast<std::int32_t>(r % height));
    }
  });
}

void max_forward(const Tensor& input, const PoolOptions& options, Tensor& output, Tensor& indices) {
  const PoolShape shape = pool_shape(input, output, &indices, options);
  dispatch_floating(kOp, input.dtype(), [&](auto element) {
    using T = decltype(element);
    const T* const in = input.data<T>();
    T* const out = output.data<T>();
    std::int32_t* const winner = indices.data<std::int32_t>();
    for_each_output_row(shape, [&](std::int64_t image, std::int32_t d, std::int32_t h) {
      const T* const volume = in + image * shape.in_volume;
      const Range range_d = inside(shape.axis[0], d);
      const Range range_h = inside(shape.axis[1], h);
      std::int64_t at =
          image * shape.out_volume + (std::int64_t{d} * shape.axis[1].out + h) * shape.axis[2].out;
      for (std::int32_t w = 0; w < shape.axis[2].out; ++w, ++at) {
        const Range range_w = inside(shape.axis[2], w);
        T best = -std::numeric_limits<T>::infinity();
        const bool empty =
            range_d.first >= range_d.end || range_h.first >= range_h.end || range_w.first >= range_w.end;
        std::int32_t index =
            empty ? -1
                  : (range_d.first * shape.axis[1].in + range_h.first) * shape.axis[2].in + range_w.first;
        for (std::int32_t z = range_d.first; z < range_d.end; z += shape.axis[0].dilation) {
          for (std::int32_t y = range_h.first; y < range_h.end; y += shape.axis[1].dilation) {
            const std::int32_t row = (z * shape.axis[1].in + y) * shape.axis[2].in;
            for (std::int32_t x = range_w.first; x < range_w.end; x += shape.axis[2].dilation) {
              const T value = volume[row + x];
              if (value > best || value != value) {
                best = value;
                index = row + x;
              }
            }
          }
        }
        out[at] = best;
        winner[at] = index;
      }
    });
  });
}

void max_backward(const Tensor& grad_output, const Tensor& indices, const PoolOptions& options,
                  Tensor& grad_input) {
  const PoolShape shape = pool_shape(grad_input, grad_output, &indices, options);
  dispatch_floating(kOp, grad_input.dtype(), [&](auto element) {
    using T = decltype(element);
    const T* const grad = grad_output.data<T>();
    const std::int32_t* const winner = indices.data<std::int32_t>();
    T* const out = grad_input.data<T>();
    parallel_for(shape.images, 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t image = first; image < last; ++image) {
        T* const volume = out + image * shape.in_volume;
        std::fill_n(volume, shape.in_volume, T(0));
        const std::int64_t start = image * shape.out_volume;
        for (std::int64_t i = start; i < start + shape.out_volume; ++i) {
          const std::int32_t index = winner[i];
          if (index >= 0 && index < shape.in_volume) volume[index] += grad[i];
        }
      }
    });
  });
}

void average_forward(const Tensor& input, const PoolOptions& options, Tensor& output) {
  const PoolShape shape = pool_shape(input, output, nullptr, options);
  dispatch_floating(kOp, input.dtype(), [&](auto element) {
    using T = decltype(element);
    const T* const in = input.data<T>();
    T* const out = output.data<T>();
    for_each_output_row(shape, [&](std::int64_t image, std::int32_t d, std::int32_t h) {
      const T* const volume = in + image * shape.in_volume;
      const Range range_d = inside(shape.axis[0], d);
      const Range range_h = inside(shape.axis[1], h);
      std::int64_t at =
          image * shape.out_volume + (std::int64_t{d} * shape.axis[1].out + h) * shape.axis[2].out;
      for (std::int32_t w = 0; w < shape.axis[2].out; ++w, ++at) {
        const Range range_w = inside(shape.axis[2], w);
        T sum = T(0);
        for (std::int32_t z = range_d.first; z < range_d.end; ++z) {
          for (std::int32_t y = range_h.first; y < range_h.end; ++y) {
            const T* const row = volume + (z * shape.axis[1].in + y) * shape.axis[2].in;
            for (std::int32_t x = range_w.first; x < range_w.end; ++x) sum += row[x];
          }
        }
        out[at] = sum / pool_divisor<T>(shape, d, h, w);
      }
    });
  });
}

void average_backward(const Tensor& grad_output, const PoolOptions& options, Tensor& grad_input) {
  const PoolShape shape = pool_shape(grad_input, grad_output, nullptr, options);
  dispatch_floating(kOp, grad_input.dtype(), [&](auto element) {
    using T = decltype(element);
    const T* const grad = grad_output.data<T>();
    T* const out = grad_input.data<T>();
    parallel_for(shape.images, 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t image = first; image < last; ++image) {
        T* const volume = out + image * shape.in_volume;
        std::fill_n(volume, shape.in_volume, T(0));
        const T* g = grad + image * shape.out_volume;
        for (std::int32_t d = 0; d < shape.axis[0].out; ++d) {
          const Range range_d = inside(shape.axis[0], d);
          for (std::int32_t h = 0; h < shape.axis[1].out; ++h) {
            const Range range_h = inside(shape.axis[1], h);
            for (std::int32_t w = 0; w < shape.axis[2].out; ++w, ++g) {
              const Range range_w = inside(shape.axis[2], w);
              const T share = *g / pool_divisor<T>(shape, d, h, w);
              for (std::int32_t z = range_d.first; z < range_d.end; ++z) {
                for (std::int32_t y = range_h.first; y < range_h.end; ++y) {
                  T* const row = volume + (z * shape.axis[1].in + y) * shape.axis[2].in;
                  for (std::int32_t x = range_w.first; x < range_w.end; ++x) row[x] += share;
                }
              }
            }
          }
        }
      }
    });
  });
}

}  // namespace

extern const Pool3d pool3d;
const Pool3d pool3d{max_forward, max_backward, average_forward, average_backward};

}  // namespace cinnabar::cpu
