#pragma once

// Linear and nearest sampling on the CPU, with its gradients, a block of points at a time: shared by
// grid_sample and by ops that make the points themselves.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/grid_position.hpp"
#include "kernels/grid_sample.hpp"
#include "kernels/parallel.hpp"

namespace cinnabar::cpu {

constexpr int kSampleBlock = 64;             // points located at once, so that this part vectorises
constexpr std::int64_t kSampleChunk = 8192;  // points handed to a thread at once

/// Cells of up to kSampleBlock points, axis by axis.
template <class T, int Dims>
struct SampleCells {
  std::array<std::array<std::int32_t, kSampleBlock>, Dims> cell;
  std::array<std::array<T, kSampleBlock>, Dims> fraction;
  std::array<std::array<T, kSampleBlock>, Dims> slope;
};

/// Fills the cells of `count` points.
template <Boundary kBoundary, class T, int Dims>
void locate_samples_within(const T* grid, int count, const GridSampleShape& shape,
                           const GridSampleOptions& options, SampleCells<T, Dims>& cells) {
  // Copied apart first: the loops below then run over contiguous values and vectorise.
  std::array<std::array<T, kSampleBlock>, Dims> coordinates;
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    for (std::size_t axis = 0; axis < Dims; ++axis) coordinates[axis][i] = *grid++;
  }
  const bool align = options.align_corners;
  const bool nearest = options.interpolation == Interpolation::nearest;
  for (std::size_t axis = 0; axis < Dims; ++axis) {
    const std::int32_t size = shape.extent[axis];
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
      const GridPosition<T> found = bounded_position(coordinates[axis][i], size, kBoundary, align);
      const AxisCell<T> where = nearest ? nearest_at(found.position) : cell_at(found.position);
      cells.cell[axis][i] = where.cell;
      cells.fraction[axis][i] = where.fraction;
      cells.slope[axis][i] = found.slope;
    }
  }
}

template <class T, int Dims>
void locate_samples(const T* grid, int count, const GridSampleShape& shape, const GridSampleOptions& options,
                    SampleCells<T, Dims>& cells) {
  switch (options.boundary) {
    case Boundary::zeros:
      return locate_samples_within<Boundary::zeros>(grid, count, shape, options, cells);
    case Boundary::border:
      return locate_samples_within<Boundary::border>(grid, count, shape, options, cells);
    case Boundary::reflection:
      return locate_samples_within<Boundary::reflection>(grid, count, shape, options, cells);
  }
}

/// One point's cell: the offset of its lowest corner in a channel, and which of the 2^Dims corners (bit k:
/// bit d of k says the higher one on axis d) lie inside.
template <class T, int Dims>
struct SamplePoint {
  static constexpr int kCorners = 1 << Dims;
  static constexpr unsigned kAllInside = (1u << kCorners) - 1;
  std::int64_t base = 0;
  T fraction[Dims];
  unsigned inside = kAllInside;

  bool is_nan() const {
    T sum = T(0);
    for (const T value : fraction) sum += value;
    return std::isnan(sum);
  }
};

/// Offsets of the corners from the lowest one.
template <int Dims>
std::array<std::int64_t, 1 << Dims> sample_corner_offsets(const GridSampleShape& shape) {
  std::array<std::int64_t, 1 << Dims> offsets{};
  const std::int64_t stride[3] = {1, shape.extent[0], std::int64_t{shape.extent[0]} * shape.extent[1]};
  for (std::size_t k = 0; k < offsets.size(); ++k) {
    for (std::size_t axis = 0; axis < Dims; ++axis) offsets[k] += ((k >> axis) & 1) != 0 ? stride[axis] : 0;
  }
  return offsets;
}

template <class T, int Dims>
SamplePoint<T, Dims> sample_point_at(const SampleCells<T, Dims>& cells, int i, const GridSampleShape& shape) {
  SamplePoint<T, Dims> point;
  bool interior = true;
  std::int64_t stride = 1;
  for (std::size_t axis = 0; axis < Dims; ++axis) {
    const std::int32_t cell = cells.cell[axis][static_cast<std::size_t>(i)];
    interior = interior && cell >= 0 && cell < shape.extent[axis] - 1;
    point.fraction[axis] = cells.fraction[axis][static_cast<std::size_t>(i)];
    point.base += cell * stride;
    stride *= shape.extent[axis];
  }
  if (interior) [[likely]]
    return point;
  for (unsigned k = 0; k < point.kCorners; ++k) {
    for (unsigned axis = 0; axis < Dims; ++axis) {
      const auto high = static_cast<std::int32_t>((k >> axis) & 1u);
      const std::int32_t index = cells.cell[axis][static_cast<std::size_t>(i)] + high;
      if (index < 0 || index >= shape.extent[axis]) point.inside &= ~(1u << k);
    }
  }
  return point;
}

/// Splits `whole` among the corners by their linear weights.
template <class T, int Dims>
void split_to_corners(const SamplePoint<T, Dims>& point, T whole, T* parts) {
  parts[0] = whole;
  for (int axis = 0; axis < Dims; ++axis) {
    for (int k = 0; k < 1 << axis; ++k) {
      parts[k + (1 << axis)] = parts[k] * point.fraction[axis];
      parts[k] *= T(1) - point.fraction[axis];
    }
  }
}

/// Calls body(n, first, count) for blocks of points in parallel.
template <class Body>
void for_sample_blocks(const GridSampleShape& shape, const Body& body) {
  const std::int64_t chunks = (shape.points + kSampleChunk - 1) / kSampleChunk;
  // Small batch entries share a task: starting threads costs more than a few hundred points.
  const std::int64_t grain = 1 + kSampleChunk / (4 * shape.points + 1);
  parallel_for(shape.batch * chunks, grain, [&](std::int64_t first_task, std::int64_t last_task) {
    for (std::int64_t task = first_task; task < last_task; ++task) {
      const std::int64_t n = task / chunks;
      const std::int64_t end = std::min((task % chunks + 1) * kSampleChunk, shape.points);
      for (std::int64_t p = task % chunks * kSampleChunk; p < end; p += kSampleBlock) {
        body(n, p, static_cast<int>(std::min<std::int64_t>(kSampleBlock, end - p)));
      }
    }
  });
}

/// Linear interpolation inside one cell: along x first, then y, then z.
template <int Dims, class T>
T blend_corners(const T* corner, const T* fraction, const std::int64_t* offsets) {
  if constexpr (Dims == 0) {
    return *corner;
  } else {
    const T low = blend_corners<Dims - 1>(corner, fraction, offsets);
    const T high = blend_corners<Dims - 1>(corner + offsets[1 << (Dims - 1)], fraction, offsets);
    return low + fraction[Dims - 1] * (high - low);
  }
}

template <class T, int Dims>
void sample_linear(const T* input, const SampleCells<T, Dims>& cells, int count, const GridSampleShape& shape,
                   T* output) {
  const auto offsets = sample_corner_offsets<Dims>(shape);
  for (int i = 0; i < count; ++i) {
    const SamplePoint<T, Dims> point = sample_point_at(cells, i, shape);
    T* target = output + i;
    if (point.inside == point.kAllInside) [[likely]] {
      for (std::int64_t c = 0; c < shape.channels; ++c, target += shape.points) {
        *target = blend_corners<Dims>(input + c * shape.volume + point.base, point.fraction, offsets.data());
      }
      continue;
    }
    T weight[SamplePoint<T, Dims>::kCorners];
    split_to_corners(point, T(1), weight);
    for (std::int64_t c = 0; c < shape.channels; ++c, target += shape.points) {
      const T* plane = input + c * shape.volume + point.base;
      T value = point.is_nan() ? std::numeric_limits<T>::quiet_NaN() : T(0);
      for (std::size_t k = 0; k < offsets.size(); ++k) {
        if (((point.inside >> k) & 1u) != 0) value += weight[k] * plane[offsets[k]];
      }
      *target = value;
    }
  }
}

template <class T, int Dims>
void sample_nearest(const T* input, const SampleCells<T, Dims>& cells, int count,
                    const GridSampleShape& shape, T* output) {
  for (int i = 0; i < count; ++i) {
    const SamplePoint<T, Dims> point = sample_point_at(cells, i, shape);
    const T outside = point.is_nan() ? std::numeric_limits<T>::quiet_NaN() : T(0);
    const bool inside = (point.inside & 1u) != 0 && !point.is_nan();
    for (std::int64_t c = 0; c < shape.channels; ++c) {
      output[c * shape.points + i] = inside ? input[c * shape.volume + point.base] : outside;
    }
  }
}

/// output[c][i] = what channel c of the input has at point i of `count`.
template <class T, int Dims>
void sample_block(const T* input, const SampleCells<T, Dims>& cells, int count, const GridSampleShape& shape,
                  const GridSampleOptions& options, T* output) {
  if (options.interpolation == Interpolation::linear) {
    sample_linear(input, cells, count, shape, output);
  } else {
    sample_nearest(input, cells, count, shape, output);
  }
}

/// Adds one point's gradient to the voxels it was sampled from.
template <class T, int Dims>
void scatter_sample(const T* grad_output, const SamplePoint<T, Dims>& point,
                    const std::array<std::int64_t, 1 << Dims>& offsets, const GridSampleShape& shape,
                    bool linear, T* grad_input) {
  if (point.is_nan()) return;
  T* plane = grad_input + point.base;
  for (std::int64_t c = 0; c < shape.channels; ++c, plane += shape.volume) {
    const T grad = grad_output[c * shape.points];
    T parts[SamplePoint<T, Dims>::kCorners];
    split_to_corners(point, grad, parts);
    if (!linear) {
      if ((point.inside & 1u) != 0) *plane += grad;
    } else if (point.inside == point.kAllInside) [[likely]] {
      for (std::size_t k = 0; k < offsets.size(); ++k) plane[offsets[k]] += parts[k];
    } else {
      for (std::size_t k = 0; k < offsets.size(); ++k) {
        if (((point.inside >> k) & 1u) != 0) plane[offsets[k]] += parts[k];
      }
    }
  }
}

/// Derivatives along every axis of the linear interpolation of corner values; `values` is overwritten.
template <class T, int Dims>
void slopes_of_corners(const SamplePoint<T, Dims>& point, T* values, T* slope) {
  T rise[Dims]
        [SamplePoint<T, Dims>::kCorners];  // rise[d]: the differences along axis d, blended along later axes
  for (int axis = 0; axis < Dims; ++axis) {
    const T fraction = point.fraction[axis];
    for (int k = 0; k < 1 << (Dims - 1 - axis); ++k) {
      rise[axis][k] = values[2 * k + 1] - values[2 * k];
      values[k] = values[2 * k] + fraction * rise[axis][k];
      for (int d = 0; d < axis; ++d) {
        rise[d][k] = rise[d][2 * k] + fraction * (rise[d][2 * k + 1] - rise[d][2 * k]);
      }
    }
  }
  for (int axis = 0; axis < Dims; ++axis) slope[axis] = rise[axis][0];
}

template <class T, int Dims>
void sample_gradients(const T* grad_output, const T* input, const SampleCells<T, Dims>& cells, int count,
                      const GridSampleShape& shape, T* grad_grid) {
  const auto offsets = sample_corner_offsets<Dims>(shape);
  for (int i = 0; i < count; ++i) {
    const SamplePoint<T, Dims> point = sample_point_at(cells, i, shape);
    T values[SamplePoint<T, Dims>::kCorners] = {};  // channel sums of grad_output times corner value
    for (std::int64_t c = 0; c < shape.channels; ++c) {
      const T* plane = input + c * shape.volume + point.base;
      const T grad = grad_output[c * shape.points + i];
      if (point.inside == point.kAllInside) [[likely]] {
        for (std::size_t k = 0; k < offsets.size(); ++k) values[k] += grad * plane[offsets[k]];
      } else {
        for (std::size_t k = 0; k < offsets.size(); ++k) {
          if (((point.inside >> k) & 1u) != 0) values[k] += grad * plane[offsets[k]];
        }
      }
    }
    T slope[Dims];
    slopes_of_corners(point, values, slope);
    for (std::size_t axis = 0; axis < Dims; ++axis) {
      const T scale = point.is_nan() ? std::numeric_limits<T>::quiet_NaN()
                                     : cells.slope[axis][static_cast<std::size_t>(i)];
      *grad_grid++ = slope[axis] * scale;
    }
  }
}

}  // namespace cinnabar::cpu
