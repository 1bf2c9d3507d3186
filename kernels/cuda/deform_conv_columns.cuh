#pragma once

// The kernels of deformable convolution, in 2-D and 3-D: columns from images, the way back to offsets and
// masks, and the scatter to the image's gradient.

#include "kernels/cuda/fixed_point.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/deform_conv.hpp"
#include "kernels/deform_conv_point.hpp"

namespace cinnabar::cuda {
namespace {

constexpr int kBlock = 256;

/// The columns [images][in_channels x taps][count] that exist at one time: those of positions from `first`.
struct Columns {
  DeformConvShape s;
  std::int64_t first, count;
  std::int64_t images;
  unsigned planes;  ///< images times offset groups times taps
  int channels;     ///< of an offset group, for each blockIdx.z
};

/// A thread's place in the output and a block's plane of offsets.
template <int Dims>
struct Place {
  std::int32_t at[Dims];  ///< along x, y(, z)

  __device__ __forceinline__ Place(const Columns& columns, std::int64_t column) {
    auto rest = static_cast<unsigned>(columns.first + column);
#pragma unroll
    for (int axis = 0; axis < Dims; ++axis) {
      const auto out = static_cast<unsigned>(columns.s.axis[2 - axis].out);
      at[axis] = static_cast<std::int32_t>(rest % out);
      rest /= out;
    }
  }

  __device__ __forceinline__ DeformPoint<float, Dims> point(const Columns& columns, unsigned plane,
                                                            std::int64_t column, const float* offset) const {
    const DeformConvShape& s = columns.s;
    std::int32_t voxel[Dims];
    auto tap = plane % static_cast<unsigned>(s.taps());
#pragma unroll
    for (int axis = 0; axis < Dims; ++axis) {
      const Conv3dAxis& along = s.axis[2 - axis];
      voxel[axis] =
          along.source(at[axis], static_cast<std::int32_t>(tap % static_cast<unsigned>(along.kernel)));
      tap /= static_cast<unsigned>(along.kernel);
    }
    const std::int64_t volume = s.out_volume();
    return deform_point<float, Dims>(voxel, offset + plane * Dims * volume + columns.first + column, volume);
  }
};

/// The channels that a block reads or writes through one tap: in the images, and in the columns.
struct Channels {
  std::int64_t volume, step;  ///< from channel to channel
  std::int64_t image, column;
  int count;

  __device__ __forceinline__ Channels(const Columns& columns, unsigned plane, int piece, int channels) {
    const DeformConvShape& s = columns.s;
    const auto taps = static_cast<unsigned>(s.taps());
    const int of_group = static_cast<int>(s.in_channels / s.offset_groups), first = piece * channels;
    const std::int64_t channel = std::int64_t{plane / taps} * of_group + first;
    volume = s.in_volume();
    step = taps * columns.count;
    image = channel * volume;
    column = (channel * taps + plane % taps) * columns.count;
    count = of_group - first < channels ? of_group - first : channels;
  }
};

// budget: <=64 registers, 0 B shared, 256 threads, occupancy >= 0.5
template <int Dims>
__global__ void __launch_bounds__(kBlock, 4)
    deform_conv_columns_point_kernel(const float* input, const float* offset, const float* mask,
                                     Columns columns, float* values) {
  const std::int64_t column = thread_index();
  if (column >= columns.count) return;
  const Place<Dims> place(columns, column);
  for (unsigned plane = blockIdx.y; plane < columns.planes; plane += gridDim.y) {
    const DeformPoint<float, Dims> point = place.point(columns, plane, column, offset);
    const DeformCorners<Dims> corners = deform_corners(point, columns.s);
    float weight[1 << Dims];
    deform_weights(point, corners,
                   mask == nullptr ? 1.0f : mask[plane * columns.s.out_volume() + columns.first + column],
                   weight);
    const Channels channels(columns, plane, static_cast<int>(blockIdx.z), columns.channels);
    const float* from = input + channels.image;
    float* to = values + channels.column + column;
    for (int c = 0; c < channels.count; ++c) {
      float value = 0.0f;
#pragma unroll
      for (int k = 0; k < DeformCorners<Dims>::kCount; ++k) {
        if (weight[k] != 0.0f) value += weight[k] * from[corners.offset[k]];
      }
      *to = value;
      from += channels.volume;
      to += channels.step;
    }
  }
}

// budget: <=80 registers, 0 B shared, 256 threads, occupancy >= 0.37
template <int Dims>
__global__ void __launch_bounds__(kBlock, 3)
    deform_conv_backward_point_kernel(const float* grad_columns, const float* input, const float* offset,
                                      const float* mask, Columns columns, float* grad_offset,
                                      float* grad_mask) {
  const std::int64_t column = thread_index();
  if (column >= columns.count) return;
  const Place<Dims> place(columns, column);
  const std::int64_t volume = columns.s.out_volume();
  for (unsigned plane = blockIdx.y; plane < columns.planes; plane += gridDim.y) {
    const DeformPoint<float, Dims> point = place.point(columns, plane, column, offset);
    const DeformCorners<Dims> corners = deform_corners(point, columns.s);
    const Channels channels(columns, plane, 0, static_cast<int>(columns.s.in_channels));
    const float* from = input + channels.image;
    const float* grad = grad_columns + channels.column + column;
    float value[1 << Dims] = {};  // channel sum of the column's gradient times the corner's value
    for (int c = 0; c < channels.count; ++c) {
      const float term = *grad;
#pragma unroll
      for (int k = 0; k < DeformCorners<Dims>::kCount; ++k) {
        if ((corners.inside >> k) & 1u) value[k] += term * from[corners.offset[k]];
      }
      from += channels.volume;
      grad += channels.step;
    }
    const float sum = point.fraction_sum();
    const bool nan = sum != sum;
    const std::int64_t at = plane * volume + columns.first + column;
    if (grad_offset != nullptr) {
      const float factor = mask == nullptr ? 1.0f : mask[at];
#pragma unroll
      for (int axis = 0; axis < Dims; ++axis) {
        grad_offset[(std::int64_t{plane} * Dims + Dims - 1 - axis) * volume + columns.first + column] =
            nan ? sum : factor * deform_slope<float, Dims>(point, value, axis);
      }
    }
    if (grad_mask != nullptr) {
      float blended = 0.0f;
#pragma unroll
      for (int k = 0; k < DeformCorners<Dims>::kCount; ++k) blended += deform_weight(point, k) * value[k];
      grad_mask[at] = nan ? sum : blended;
    }
  }
}

/// Number of the cell in a grid with one more cell below on every axis; -2 where it holds no voxel.
template <int Dims>
__device__ __forceinline__ std::int64_t cell_number(const DeformPoint<float, Dims>& point,
                                                    const DeformConvShape& shape) {
  std::int64_t number = 0;
#pragma unroll
  for (int axis = Dims - 1; axis >= 0; --axis) {
    const int cell = point.cell[axis], extent = shape.axis[2 - axis].in;
    if (cell < -1 || cell >= extent) return -2;
    number = number * (extent + 1) + cell + 1;
  }
  const float sum = point.fraction_sum();
  return sum != sum ? -2 : number;
}

// budget: <=64 registers, 0 B shared, 256 threads, occupancy >= 0.5
template <int Dims>
__global__ void __launch_bounds__(kBlock, 4)
    deform_conv_scatter_point_kernel(const float* grad_columns, const float* offset, const float* mask,
                                     Columns columns, FixedPointScale scale, long long* sums) {
  const unsigned peak_bits = *scale.peak;
  if (!peak_is_finite(peak_bits)) return;
  const float factor = fixed_point_factor(scale, peak_bits);
  const std::int64_t thread = thread_index();
  const bool in_range = thread < columns.count;
  const std::int64_t column = in_range ? thread : 0;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const Place<Dims> place(columns, column);
  for (unsigned plane = blockIdx.y; plane < columns.planes; plane += gridDim.y) {
    const DeformPoint<float, Dims> point = place.point(columns, plane, column, offset);
    DeformCorners<Dims> corners = deform_corners(point, columns.s);
    const std::int64_t number = in_range ? cell_number(point, columns.s) : -2;
    if (number < 0) corners.inside = 0;
    float weight[1 << Dims];
    deform_weights(
        point, corners,
        mask == nullptr ? factor : factor * mask[plane * columns.s.out_volume() + columns.first + column],
        weight);
    // Across the end of a row of cells a lane passes on zeros: its upper corners lie outside.
    const std::int64_t next = __shfl_down_sync(0xFFFFFFFFu, number, 1);
    const bool gives = lane < 31 && number >= 0 && next == number + 1;
    const bool given = __shfl_up_sync(0xFFFFFFFFu, gives ? 1 : 0, 1) != 0 && lane > 0;
    const Channels channels(columns, plane, static_cast<int>(blockIdx.z), columns.channels);
    const float* grad = grad_columns + channels.column + column;
    long long* to = sums + channels.image;
    for (int c = 0; c < channels.count; ++c) {
      const float term = in_range ? *grad : 0.0f;
#pragma unroll
      for (int k = 0; k < DeformCorners<Dims>::kCount; k += 2) {
        const bool low_inside = ((corners.inside >> k) & 1u) != 0;
        const bool high_inside = ((corners.inside >> (k + 1)) & 1u) != 0;
        long long low = low_inside ? to_fixed_point(weight[k] * term) : 0;
        const long long high = high_inside ? to_fixed_point(weight[k + 1] * term) : 0;
        const long long passed = __shfl_up_sync(0xFFFFFFFFu, high, 1);
        if (given) low += passed;
        if (low != 0) add_fixed_point(to + corners.offset[k], low);
        if (high != 0 && !gives) add_fixed_point(to + corners.offset[k + 1], high);
      }
      grad += channels.step;
      to += channels.volume;
    }
  }
}

// budget: <=16 registers, 0 B shared, 32 threads, occupancy >= 0.25
__global__ void deform_conv_bound_kernel(const unsigned* grad, const unsigned* weight, const unsigned* mask,
                                         float products, unsigned* bound) {
  if (threadIdx.x != 0) return;
  const float factor = mask == nullptr ? 1.0f : __uint_as_float(*mask);
  const float largest = __uint_as_float(*grad) * __uint_as_float(*weight) * factor * products;
  *bound = __float_as_uint(largest);
}

}  // namespace
}  // namespace cinnabar::cuda
