#include "kernels/grid_sample.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <span>
#include <type_traits>

#include "kernels/cpu/scatter.hpp"
#include "kernels/grid_position.hpp"
#include "kernels/parallel.hpp"

namespace cinnabar::cpu {
namespace {

constexpr int kBlock = 64;             // points located at once, so that this part vectorises
constexpr std::int64_t kChunk = 8192;  // points handed to a thread at once

/// Cells of up to kBlock points, axis by axis.
template <class T, int Dims>
struct Cells {
  std::array<std::array<std::int32_t, kBlock>, Dims> cell;
  std::array<std::array<T, kBlock>, Dims> fraction;
  std::array<std::array<T, kBlock>, Dims> slope;
};

/// Fills the cells of `count` points.
template <Boundary kBoundary, class T, int Dims>
void locate_within(const T* grid, int count, const GridSampleShape& shape, const GridSampleOptions& options,
                   Cells<T, Dims>& cells) {
  // Copied apart first: the loops below then run over contiguous values and vectorise.
  std::array<std::array<T, kBlock>, Dims> coordinates;
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
void locate(const T* grid, int count, const GridSampleShape& shape, const GridSampleOptions& options,
            Cells<T, Dims>& cells) {
  switch (options.boundary) {
    case Boundary::zeros:
      return locate_within<Boundary::zeros>(grid, count, shape, options, cells);
    case Boundary::border:
      return locate_within<Boundary::border>(grid, count, shape, options, cells);
    case Boundary::reflection:
      return locate_within<Boundary::reflection>(grid, count, shape, options, cells);
  }
}

/// One point's cell: the offset of its lowest corner in a channel, and which of the 2^Dims corners (bit k:
/// bit d of k says the higher one on axis d) lie inside.
template <class T, int Dims>
struct Point {
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
std::array<std::int64_t, 1 << Dims> corner_offsets(const GridSampleShape& shape) {
  std::array<std::int64_t, 1 << Dims> offsets{};
  const std::int64_t stride[3] = {1, shape.extent[0], std::int64_t{shape.extent[0]} * shape.extent[1]};
  for (std::size_t k = 0; k < offsets.size(); ++k) {
    for (std::size_t axis = 0; axis < Dims; ++axis) offsets[k] += ((k >> axis) & 1) != 0 ? stride[axis] : 0;
  }
  return offsets;
}

template <class T, int Dims>
Point<T, Dims> point_at(const Cells<T, Dims>& cells, int i, const GridSampleShape& shape) {
  Point<T, Dims> point;
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
void split_to_corners(const Point<T, Dims>& point, T whole, T* parts) {
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
void for_point_blocks(const GridSampleShape& shape, const Body& body) {
  const std::int64_t chunks = (shape.points + kChunk - 1) / kChunk;
  // Small batch entries share a task: starting threads costs more than a few hundred points.
  const std::int64_t grain = 1 + kChunk / (4 * shape.points + 1);
  parallel_for(shape.batch * chunks, grain, [&](std::int64_t first_task, std::int64_t last_task) {
    for (std::int64_t task = first_task; task < last_task; ++task) {
      const std::int64_t n = task / chunks;
      const std::int64_t end = std::min((task % chunks + 1) * kChunk, shape.points);
      for (std::int64_t p = task % chunks * kChunk; p < end; p += kBlock) {
        body(n, p, static_cast<int>(std::min<std::int64_t>(kBlock, end - p)));
      }
    }
  });
}

/// Linear interpolation inside one cell: along x first, then y, then z.
template <int Dims, class T>
T blend(const T* corner, const T* fraction, const std::int64_t* offsets) {
  if constexpr (Dims == 0) {
    return *corner;
  } else {
    const T low = blend<Dims - 1>(corner, fraction, offsets);
    const T high = blend<Dims - 1>(corner + offsets[1 << (Dims - 1)], fraction, offsets);
    return low + fraction[Dims - 1] * (high - low);
  }
}

template <class T, int Dims>
void sample_linear(const T* input, const Cells<T, Dims>& cells, int count, const GridSampleShape& shape,
                   T* output) {
  const auto offsets = corner_offsets<Dims>(shape);
  for (int i = 0; i < count; ++i) {
    const Point<T, Dims> point = point_at(cells, i, shape);
    T* target = output + i;
    if (point.inside == point.kAllInside) [[likely]] {
      for (std::int64_t c = 0; c < shape.channels; ++c, target += shape.points) {
        *target = blend<Dims>(input + c * shape.volume + point.base, point.fraction, offsets.data());
      }
      continue;
    }
    T weight[Point<T, Dims>::kCorners];
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
void sample_nearest(const T* input, const Cells<T, Dims>& cells, int count, const GridSampleShape& shape,
                    T* output) {
  for (int i = 0; i < count; ++i) {
    const Point<T, Dims> point = point_at(cells, i, shape);
    const T outside = point.is_nan() ? std::numeric_limits<T>::quiet_NaN() : T(0);
    const bool inside = (point.inside & 1u) != 0 && !point.is_nan();
    for (std::int64_t c = 0; c < shape.channels; ++c) {
      output[c * shape.points + i] = inside ? input[c * shape.volume + point.base] : outside;
    }
  }
}

template <class T, int Dims>
void run_forward(const Tensor& input, const Tensor& grid, const GridSampleOptions& options,
                 const GridSampleShape& shape, Tensor& output) {
  const T* input_data = input.data<T>();
  const T* grid_data = grid.data<T>();
  T* output_data = output.data<T>();
  for_point_blocks(shape, [&](std::int64_t n, std::int64_t first, int count) {
    Cells<T, Dims> cells;
    locate(grid_data + (n * shape.points + first) * Dims, count, shape, options, cells);
    const T* image = input_data + n * shape.channels * shape.volume;
    T* target = output_data + n * shape.channels * shape.points + first;
    if (options.interpolation == Interpolation::linear) {
      sample_linear(image, cells, count, shape, target);
    } else {
      sample_nearest(image, cells, count, shape, target);
    }
  });
}

/// Adds one point's gradient to the voxels it was sampled from.
template <class T, int Dims>
void scatter_point(const T* grad_output, const Point<T, Dims>& point,
                   const std::array<std::int64_t, 1 << Dims>& offsets, const GridSampleShape& shape,
                   bool linear, T* grad_input) {
  if (point.is_nan()) return;
  T* plane = grad_input + point.base;
  for (std::int64_t c = 0; c < shape.channels; ++c, plane += shape.volume) {
    const T grad = grad_output[c * shape.points];
    T parts[Point<T, Dims>::kCorners];
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

/// Points are sorted by their cell on the outermost axis: cell s - 1 touches planes s - 1 and s of the image.
template <class T, int Dims>
void run_backward_input(const Tensor& grad_output, const Tensor& grid, const GridSampleOptions& options,
                        const GridSampleShape& shape, Tensor& grad_input) {
  zero_bytes(grad_input.raw(), grad_input.device(), grad_input.bytes());
  constexpr auto kOuter = static_cast<std::size_t>(Dims - 1);
  const bool linear = options.interpolation == Interpolation::linear;
  const auto offsets = corner_offsets<Dims>(shape);
  for (std::int64_t n = 0; n < shape.batch; ++n) {
    const T* points = grid.data<T>() + n * shape.points * Dims;
    const T* grad = grad_output.data<T>() + n * shape.channels * shape.points;
    T* target = grad_input.data<T>() + n * shape.channels * shape.volume;
    const auto find_slabs = [&](std::int64_t begin, std::int64_t end, std::int32_t* slab) {
      Cells<T, Dims> cells;
      for (std::int64_t p = begin; p < end; p += kBlock) {
        const int count = static_cast<int>(std::min<std::int64_t>(kBlock, end - p));
        locate(points + p * Dims, count, shape, options, cells);
        for (int i = 0; i < count; ++i) {
          const std::int32_t cell = cells.cell[kOuter][static_cast<std::size_t>(i)];
          *slab++ = cell >= -1 && cell < shape.extent[kOuter] ? cell + 1 : kNoSlab;
        }
      }
    };
    const auto deposit = [&](std::span<const std::uint32_t> items) {
      Cells<T, Dims> cells;
      std::array<T, kBlock * Dims> coordinates;
      for (; !items.empty(); items = items.subspan(std::min<std::size_t>(kBlock, items.size()))) {
        const int count = static_cast<int>(std::min<std::size_t>(kBlock, items.size()));
        T* next = coordinates.data();
        for (const std::uint32_t item : items.first(static_cast<std::size_t>(count))) {
          next = std::copy_n(points + std::int64_t{item} * Dims, Dims, next);
        }
        locate(coordinates.data(), count, shape, options, cells);
        for (int i = 0; i < count; ++i) {
          const T* first = grad + items[static_cast<std::size_t>(i)];
          scatter_point(first, point_at(cells, i, shape), offsets, shape, linear, target);
        }
      }
    };
    scatter_by_slab(shape.points, shape.extent[kOuter] + std::int64_t{1}, find_slabs, deposit);
  }
}

/// Derivatives along every axis of the linear interpolation of corner values; `values` is overwritten.
template <class T, int Dims>
void slopes_of(const Point<T, Dims>& point, T* values, T* slope) {
  T rise[Dims][Point<T, Dims>::kCorners];  // rise[d]: the differences along axis d, blended along later axes
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
void grid_gradient(const T* grad_output, const T* input, const Cells<T, Dims>& cells, int count,
                   const GridSampleShape& shape, T* grad_grid) {
  const auto offsets = corner_offsets<Dims>(shape);
  for (int i = 0; i < count; ++i) {
    const Point<T, Dims> point = point_at(cells, i, shape);
    T values[Point<T, Dims>::kCorners] = {};  // channel sums of grad_output times corner value
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
    slopes_of(point, values, slope);
    for (std::size_t axis = 0; axis < Dims; ++axis) {
      const T scale = point.is_nan() ? std::numeric_limits<T>::quiet_NaN()
                                     : cells.slope[axis][static_cast<std::size_t>(i)];
      *grad_grid++ = slope[axis] * scale;
    }
  }
}

template <class T, int Dims>
void run_backward_grid(const Tensor& grad_output, const Tensor& input, const Tensor& grid,
                       const GridSampleOptions& options, const GridSampleShape& shape, Tensor& grad_grid) {
  const T* grad_data = grad_output.data<T>();
  const T* input_data = input.data<T>();
  const T* grid_data = grid.data<T>();
  T* target = grad_grid.data<T>();
  for_point_blocks(shape, [&](std::int64_t n, std::int64_t first, int count) {
    Cells<T, Dims> cells;
    const std::int64_t at = (n * shape.points + first) * Dims;
    locate(grid_data + at, count, shape, options, cells);
    grid_gradient(grad_data + n * shape.channels * shape.points + first,
                  input_data + n * shape.channels * shape.volume, cells, count, shape, target + at);
  });
}

/// Calls fn(T{}, integral_constant of the number of axes).
template <class Function>
void dispatch(const Tensor& input, const GridSampleShape& shape, const Function& fn) {
  dispatch_floating("grid_sample", input.dtype(), [&](auto type) {
    if (shape.dims == 2) return fn(type, std::integral_constant<int, 2>{});
    fn(type, std::integral_constant<int, 3>{});
  });
}

void forward(const Tensor& input, const Tensor& grid, const GridSampleOptions& options, Tensor& output) {
  const GridSampleShape shape = grid_sample_shape(input, grid, output);
  dispatch(input, shape, [&](auto type, auto dims) {
    run_forward<decltype(type), dims()>(input, grid, options, shape, output);
  });
}

void backward_input(const Tensor& grad_output, const Tensor& grid, const GridSampleOptions& options,
                    Tensor& grad_input) {
  const GridSampleShape shape = grid_sample_shape(grad_input, grid, grad_output);
  dispatch(grid, shape, [&](auto type, auto dims) {
    run_backward_input<decltype(type), dims()>(grad_output, grid, options, shape, grad_input);
  });
}

void backward_grid(const Tensor& grad_output, const Tensor& input, const Tensor& grid,
                   const GridSampleOptions& options, Tensor& grad_grid) {
  const GridSampleShape shape = grid_sample_shape(input, grid, grad_output);
  require_same_shape("grid_sample", grad_grid, grid);
  require_dtype("grid_sample", grad_grid, grid.dtype());
  require_same_device("grid_sample", grad_grid, grid);
  if (options.interpolation == Interpolation::nearest) return grad_grid.fill(0.0);
  dispatch(input, shape, [&](auto type, auto dims) {
    run_backward_grid<decltype(type), dims()>(grad_output, input, grid, options, shape, grad_grid);
  });
}

}  // namespace

extern const GridSample grid_sample;
const GridSample grid_sample{forward, backward_input, backward_grid};

}  // namespace cinnabar::cpu
