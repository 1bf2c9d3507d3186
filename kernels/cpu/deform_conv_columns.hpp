#pragma once

// The columns of deformable convolution on the CPU: sampled from an image, differentiated with respect to the
// points they were sampled at, and added back to the image.

#include <algorithm>
#include <array>
#include <type_traits>

#include "kernels/deform_conv.hpp"
#include "kernels/deform_conv_point.hpp"

namespace cinnabar::cpu {
namespace {

constexpr int kRun = 64;  // points located at once

/// Up to kRun points of one tap: the weights of corners hold the mask, and are 0 outside.
template <class T, int Dims>
struct Points {
  static constexpr std::size_t kCorners = std::size_t{1} << Dims;
  std::array<DeformPoint<T, Dims>, kRun> point;
  std::array<std::array<std::int32_t, kRun>, kCorners> offset;
  std::array<std::array<T, kRun>, kCorners> weight;
  std::array<std::array<T, kRun>, kCorners> presence;  ///< 1 inside, 0 outside and where an offset is NaN
};

/// Tensors that say where columns are sampled.
template <class T>
struct Sampling {
  const DeformConvShape& s;
  const T* offset;
  const T* mask;  ///< null without one

  /// Number of a tap in the planes of masks.
  std::int64_t plane(std::int64_t n, std::int64_t group, std::int64_t tap) const {
    return (n * s.offset_groups + group) * s.taps() + tap;
  }
  std::int64_t group_channels() const { return s.in_channels / s.offset_groups; }
};

/// Fills the points of `count` positions from `first` on.
template <class T, int Dims>
void locate(const Sampling<T>& from, std::int64_t plane, std::int64_t first, int count,
            Points<T, Dims>& points) {
  const DeformConvShape& s = from.s;
  const std::int64_t volume = s.out_volume(), tap = plane % s.taps();
  const T* offset = from.offset + plane * Dims * volume + first;
  const T* mask = from.mask == nullptr ? nullptr : from.mask + plane * volume + first;
  std::int32_t at[3], k[3];  // along x, y, z
  std::int64_t rest = first, rest_of_tap = tap;
  for (int axis = 0; axis < 3; ++axis) {
    const Conv3dAxis& along = s.axis[2 - axis];
    at[axis] = static_cast<std::int32_t>(rest % along.out);
    k[axis] = static_cast<std::int32_t>(rest_of_tap % along.kernel);
    rest /= along.out;
    rest_of_tap /= along.kernel;
  }
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    std::int32_t voxel[Dims];
    for (int axis = 0; axis < Dims; ++axis) voxel[axis] = s.axis[2 - axis].source(at[axis], k[axis]);
    const DeformPoint<T, Dims> point = deform_point<T, Dims>(voxel, offset + i, volume);
    const DeformCorners<Dims> corners = deform_corners(point, s);
    T weight[1 << Dims];
    deform_weights(point, corners, mask == nullptr ? T(1) : mask[i], weight);
    const T sum = point.fraction_sum();
    points.point[i] = point;
    for (std::size_t c = 0; c < points.kCorners; ++c) {
      points.offset[c][i] = corners.offset[c];
      points.weight[c][i] = weight[c];
      points.presence[c][i] = ((corners.inside >> c) & 1u) != 0 && sum == sum ? T(1) : T(0);
    }
    for (int axis = 0; axis < 3 && ++at[axis] == s.axis[2 - axis].out; ++axis) at[axis] = 0;
  }
}

/// Calls visit(tap, column, count, points) for the points of one image and offset group at positions
/// [first, first + width), run by run.
template <class T, int Dims, class Visit>
void for_each_run(const Sampling<T>& from, std::int64_t n, std::int64_t group, std::int64_t first,
                  std::int64_t width, const Visit& visit) {
  Points<T, Dims> points;
  for (std::int64_t tap = 0; tap < from.s.taps(); ++tap) {
    for (std::int64_t column = 0; column < width; column += kRun) {
      const int count = static_cast<int>(std::min<std::int64_t>(kRun, width - column));
      locate(from, from.plane(n, group, tap), first + column, count, points);
      visit(tap, column, count, points);
    }
  }
}

/// Calls visit(group, first, last) for the channels [first, last) of one offset group after the other.
template <class Visit>
void for_each_group(std::int64_t group_channels, std::int64_t first, std::int64_t last, const Visit& visit) {
  while (first < last) {
    const std::int64_t group = first / group_channels;
    const std::int64_t end = std::min(last, (group + 1) * group_channels);
    visit(group, first, end);
    first = end;
  }
}

/// Writes the columns of channels [channel, channel + channels) of an image for `width` positions.
template <class T, int Dims>
void sample_columns(const Sampling<T>& from, const T* image, std::int64_t n, std::int64_t channel,
                    std::int64_t channels, std::int64_t first, std::int64_t width, T* columns) {
  const std::int64_t taps = from.s.taps(), volume = from.s.in_volume();
  for_each_group(from.group_channels(), channel, channel + channels,
                 [&](std::int64_t group, std::int64_t begin, std::int64_t end) {
                   for_each_run<T, Dims>(
                       from, n, group, first, width,
                       [&](std::int64_t tap, std::int64_t column, int count, const Points<T, Dims>& points) {
                         for (std::int64_t c = begin; c < end; ++c) {
                           const T* const plane = image + c * volume;
                           T* const to = columns + ((c - channel) * taps + tap) * width + column;
                           std::array<T, kRun> sum{};
                           for (std::size_t k = 0; k < points.kCorners; ++k) {
#pragma omp simd
                             for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
                               const T weight = points.weight[k][i], value = plane[points.offset[k][i]];
                               sum[i] += weight != T(0) ? weight * value : T(0);
                             }
                           }
                           std::copy_n(sum.begin(), count, to);
                         }
                       });
                 });
}

/// What backward_sampling writes; null where it is not wanted.
template <class T>
struct SamplingGradients {
  T* input;
  T* offset;
  T* mask;
};

/// Gradients of the offsets and masks of one image at the block's positions from those of its columns.
template <class T, int Dims>
void differentiate_points(const Sampling<T>& from, const T* image, std::int64_t n, std::int64_t first,
                          std::int64_t width, const T* grad_columns, const SamplingGradients<T>& gradients) {
  const DeformConvShape& s = from.s;
  const std::int64_t volume = s.out_volume();
  const auto differentiate = [&](std::int64_t group, std::int64_t tap, std::int64_t column, int count,
                                 const Points<T, Dims>& points) {
    T sums[1 << Dims][kRun] = {};  // over channels, of the column's gradient times the corner's value
    for (std::int64_t c = group * from.group_channels(); c < (group + 1) * from.group_channels(); ++c) {
      const T* const plane = image + c * s.in_volume();
      const T* const grad = grad_columns + (c * s.taps() + tap) * width + column;
      for (std::size_t k = 0; k < points.kCorners; ++k) {
#pragma omp simd
        for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
          const T value = plane[points.offset[k][i]];
          sums[k][i] += points.presence[k][i] != T(0) ? grad[i] * value : T(0);
        }
      }
    }
    const std::int64_t plane = from.plane(n, group, tap), at = first + column;
    for (std::int64_t i = 0; i < count; ++i) {
      const DeformPoint<T, Dims>& point = points.point[static_cast<std::size_t>(i)];
      const T sum = point.fraction_sum(), nan = std::numeric_limits<T>::quiet_NaN();
      T value[1 << Dims];
      for (std::size_t k = 0; k < points.kCorners; ++k) value[k] = sums[k][i];
      const T factor = from.mask == nullptr ? T(1) : from.mask[plane * volume + at + i];
      for (int axis = 0; gradients.offset != nullptr && axis < Dims; ++axis) {
        gradients.offset[(plane * Dims + Dims - 1 - axis) * volume + at + i] =
            sum != sum ? nan : factor * deform_slope<T, Dims>(point, value, axis);
      }
      if (gradients.mask == nullptr) continue;
      T blended = T(0);
      for (int k = 0; k < 1 << Dims; ++k) blended += deform_weight(point, k) * value[k];
      gradients.mask[plane * volume + at + i] = sum != sum ? nan : blended;
    }
  };
  for (std::int64_t group = 0; group < s.offset_groups; ++group) {
    for_each_run<T, Dims>(
        from, n, group, first, width,
        [&](std::int64_t tap, std::int64_t column, int count, const Points<T, Dims>& points) {
          differentiate(group, tap, column, count, points);
        });
  }
}

/// Adds the gradients of columns of channels [channel, last) to what they were sampled from.
template <class T, int Dims>
void scatter_columns(const Sampling<T>& from, std::int64_t n, std::int64_t channel, std::int64_t last,
                     std::int64_t first, std::int64_t width, const T* grad_columns, T* grad_image) {
  const std::int64_t taps = from.s.taps(), volume = from.s.in_volume();
  for_each_group(from.group_channels(), channel, last,
                 [&](std::int64_t group, std::int64_t begin, std::int64_t end) {
                   for_each_run<T, Dims>(
                       from, n, group, first, width,
                       [&](std::int64_t tap, std::int64_t column, int count, const Points<T, Dims>& points) {
                         for (std::int64_t c = begin; c < end; ++c) {
                           T* const plane = grad_image + c * volume;
                           const T* const grad = grad_columns + (c * taps + tap) * width + column;
                           for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
                             for (std::size_t k = 0; k < points.kCorners; ++k) {
                               const T weight = points.weight[k][i];
                               const bool takes = points.presence[k][i] != T(0) && weight != T(0);
                               if (takes) plane[points.offset[k][i]] += weight * grad[i];
                             }
                           }
                         }
                       });
                 });
}

}  // namespace
}  // namespace cinnabar::cpu
