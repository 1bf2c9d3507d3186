#include "kernels/pool3d.hpp"

#include <algorithm>
#include <limits>
#include <type_traits>
#include <vector>

#include "kernels/parallel.hpp"

namespace cinnabar::cpu {

namespace {

constexpr const char* kOp = "pool3d";
constexpr std::int64_t kGrain = 1 << 12;  // output voxels a task

/// Windows [first, end) whose tap k lies inside the image along an axis: in voxel window * stride + shift.
struct Tap {
  std::int32_t first, end, shift;
};

std::vector<Tap> taps_of(const PoolAxis& axis) {
  std::vector<Tap> taps;
  for (std::int32_t k = 0; k < axis.kernel; ++k) {
    const std::int32_t shift = k * axis.dilation - axis.padding;
    const std::int32_t first = shift >= 0 ? 0 : (-shift + axis.stride - 1) / axis.stride;
    const std::int32_t end = shift < axis.in ? (axis.in - 1 - shift) / axis.stride + 1 : 0;
    taps.push_back({first, std::min(axis.out, end), shift});
  }
  return taps;
}

/// Calls tap_of_row(tap, row of the input) for all taps inside the image of the windows of one output row, in
/// scan order. Loops over the windows of a tap vectorise where loops over the taps of a window do not.
template <class TapOfRow>
void for_each_tap(const PoolShape& shape, const std::vector<Tap>& taps, std::int32_t d, std::int32_t h,
                  const TapOfRow& tap_of_row) {
  const PoolRange range_d = shape.axis[0].inside(d);
  const PoolRange range_h = shape.axis[1].inside(h);
  for (std::int32_t z = range_d.first; z < range_d.end; z += shape.axis[0].dilation) {
    for (std::int32_t y = range_h.first; y < range_h.end; y += shape.axis[1].dilation) {
      for (const Tap& tap : taps) tap_of_row(tap, (z * shape.axis[1].in + y) * shape.axis[2].in);
    }
  }
}

/// Calls fn with the stride, as a constant where it is common, so that loads are vector loads.
template <class Function>
void with_stride(std::int32_t stride, const Function& fn) {
  if (stride == 1) return fn(std::integral_constant<std::int32_t, 1>{});
  if (stride == 2) return fn(std::integral_constant<std::int32_t, 2>{});
  fn(stride);
}

/// First element of an output row.
std::int64_t output_row(const PoolShape& shape, std::int64_t image, std::int32_t d, std::int32_t h) {
  return image * shape.out_volume + (std::int64_t{d} * shape.axis[1].out + h) * shape.axis[2].out;
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
  const std::vector<Tap> taps = taps_of(shape.axis[2]);
  dispatch_floating(kOp, input.dtype(), [&](auto element) {
    using T = decltype(element);
    const T* const in = input.data<T>();
    T* const out = output.data<T>();
    std::int32_t* const winner = indices.data<std::int32_t>();
    const auto compare_row = [&](std::int64_t image, std::int32_t d, std::int32_t h, auto stride) {
      const T* const volume = in + image * shape.in_volume;
      const std::int64_t at = output_row(shape, image, d, h);
      T* const best = out + at;
      std::int32_t* const index = winner + at;
      std::fill_n(best, shape.axis[2].out, -std::numeric_limits<T>::infinity());
      std::fill_n(index, shape.axis[2].out, -1);
      for_each_tap(shape, taps, d, h, [=](const Tap& tap, std::int32_t row) {
        const std::int32_t start = row + tap.shift;
#pragma omp simd
        for (std::int32_t w = tap.first; w < tap.end; ++w) {
          const std::int32_t voxel = start + w * stride;
          const T value = volume[voxel];
          const bool wins = (index[w] < 0) | (value > best[w]) | (value != value);
          best[w] = wins ? value : best[w];
          index[w] = wins ? voxel : index[w];
        }
      });
    };
    with_stride(shape.axis[2].stride, [&](auto stride) {
      for_each_output_row(shape, [&](std::int64_t image, std::int32_t d, std::int32_t h) {
        compare_row(image, d, h, stride);
      });
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
  const std::vector<Tap> taps = taps_of(shape.axis[2]);
  dispatch_floating(kOp, input.dtype(), [&](auto element) {
    using T = decltype(element);
    const T* const in = input.data<T>();
    T* const out = output.data<T>();
    const auto average_row = [&](std::int64_t image, std::int32_t d, std::int32_t h, auto stride) {
      const T* const volume = in + image * shape.in_volume;
      T* const sum = out + output_row(shape, image, d, h);
      std::fill_n(sum, shape.axis[2].out, T(0));
      for_each_tap(shape, taps, d, h, [=](const Tap& tap, std::int32_t row) {
        const std::int32_t start = row + tap.shift;
#pragma omp simd
        for (std::int32_t w = tap.first; w < tap.end; ++w) sum[w] += volume[start + w * stride];
      });
      for (std::int32_t w = 0; w < shape.axis[2].out; ++w) sum[w] /= pool_divisor<T>(shape, d, h, w);
    };
    with_stride(shape.axis[2].stride, [&](auto stride) {
      for_each_output_row(shape, [&](std::int64_t image, std::int32_t d, std::int32_t h) {
        average_row(image, d, h, stride);
      });
    });
  });
}

void average_backward(const Tensor& grad_output, const PoolOptions& options, Tensor& grad_input) {
  const PoolShape shape = pool_shape(grad_input, grad_output, nullptr, options);
  const std::vector<Tap> taps = taps_of(shape.axis[2]);
  dispatch_floating(kOp, grad_input.dtype(), [&](auto element) {
    using T = decltype(element);
    const T* const grad = grad_output.data<T>();
    T* const out = grad_input.data<T>();
    const auto spread_row = [&](std::int64_t image, std::int32_t d, std::int32_t h, T* share, auto stride) {
      const T* const g = grad + output_row(shape, image, d, h);
      for (std::int32_t w = 0; w < shape.axis[2].out; ++w) share[w] = g[w] / pool_divisor<T>(shape, d, h, w);
      T* const volume = out + image * shape.in_volume;
      for_each_tap(shape, taps, d, h, [=](const Tap& tap, std::int32_t row) {
        const std::int32_t start = row + tap.shift;
#pragma omp simd
        for (std::int32_t w = tap.first; w < tap.end; ++w) volume[start + w * stride] += share[w];
      });
    };
    with_stride(shape.axis[2].stride, [&](auto stride) {
      parallel_for(shape.images, 1, [&](std::int64_t first, std::int64_t last) {
        std::vector<T> share(static_cast<std::size_t>(shape.axis[2].out));
        for (std::int64_t image = first; image < last; ++image) {
          std::fill_n(out + image * shape.in_volume, shape.in_volume, T(0));
          for (std::int32_t d = 0; d < shape.axis[0].out; ++d) {
            for (std::int32_t h = 0; h < shape.axis[1].out; ++h) {
              spread_row(image, d, h, share.data(), stride);
            }
          }
        }
      });
    });
  });
}

}  // namespace

extern const Pool3d pool3d;
const Pool3d pool3d{max_forward, max_backward, average_forward, average_backward};

}  // namespace cinnabar::cpu
