#include "kernels/grid_sample.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

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

/// Fills the cells of points [0, count) whose coordinates are `stride` apart.
template <class T, int Dims>
void locate(const T* grid, int count, const GridSampleShape& shape, const GridSampleOptions& options,
            Cells<T, Dims>& cells) {
  const bool align = options.align_corners;
  const bool nearest = options.interpolation == Interpolation::nearest;
  for (int axis = 0; axis < Dims; ++axis) {
    const std::int32_t size = shape.extent[axis];
    auto& cell = cells.cell[static_cast<std::size_t>(axis)];
    auto& fraction = cells.fraction[static_cast<std::size_t>(axis)];
    auto& slope = cells.slope[static_cast<std::size_t>(axis)];
    const auto fill = [&](const auto& position_of) {
      for (int i = 0; i < count; ++i) {
        const auto at = static_cast<std::size_t>(i);
        const GridPosition<T> found = position_of(grid[i * Dims + axis]);
        const AxisCell<T> where = nearest ? nearest_at(found.position) : cell_at(found.position);
        cell[at] = where.cell;
        fraction[at] = where.fraction;
        slope[at] = found.slope;
      }
    };
    switch (options.boundary) {
      case Boundary::zeros:
        fill([=](T x) { return voxel_position(x, size, align); });
        break;
      case Boundary::border:
        fill([=](T x) { return clamped_position(voxel_position(x, size, align), size); });
        break;
      case Boundary::reflection:
        fill([=](T x) { return bounded_position(x, size, Boundary::reflection, align); });
        break;
    }
  }
}

/// The 2^Dims corners of one point: offsets in a channel, weights, and which of them lie inside.
template <class T, int Dims>
struct Corners {
  static constexpr int kCount = 1 << Dims;
  std::int64_t offset[kCount];
  T weight[kCount];
  bool inside[kCount];
  bool all_inside;
};

template <class T, int Dims>
Corners<T, Dims> corners_of(const Cells<T, Dims>& cells, int i, const GridSampleShape& shape) {
  const auto at = static_cast<std::size_t>(i);
  Corners<T, Dims> corners;
  const std::int64_t stride[3] = {1, shape.extent[0], std::int64_t{shape.extent[0]} * shape.extent[1]};
  std::int64_t base = 0;
  bool low_inside[Dims];
  bool high_inside[Dims];
  corners.all_inside = true;
  for (int axis = 0; axis < Dims; ++axis) {
    const std::int32_t cell = cells.cell[static_cast<std::size_t>(axis)][at];
    base += cell * stride[axis];
    low_inside[axis] = cell >= 0 && cell < shape.extent[axis];
    high_inside[axis] = cell >= -1 && cell < shape.extent[axis] - 1;
    corners.all_inside = corners.all_inside && low_inside[axis] && high_inside[axis];
  }
  for (int k = 0; k < Corners<T, Dims>::kCount; ++k) {
    corners.offset[k] = base;
    corners.weight[k] = T(1);
    corners.inside[k] = true;
    for (int axis = 0; axis < Dims; ++axis) {
      const bool high = ((k >> axis) & 1) != 0;
      const T fraction = cells.fraction[static_cast<std::size_t>(axis)][at];
      corners.offset[k] += high ? stride[axis] : 0;
      corners.weight[k] *= high ? fraction : T(1) - fraction;
      corners.inside[k] = corners.inside[k] && (high ? high_inside[axis] : low_inside[axis]);
    }
  }
  return corners;
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

template <class T, int Dims>
bool is_nan_point(const Cells<T, Dims>& cells, int i) {
  T sum = T(0);
  for (const auto& fraction : cells.fraction) sum += fraction[static_cast<std::size_t>(i)];
  return std::isnan(sum);
}

template <class T, int Dims>
void sample_linear(const T* input, const Cells<T, Dims>& cells, int count, const GridSampleShape& shape,
                   T* output) {
  for (int i = 0; i < count; ++i) {
    const Corners<T, Dims> corners = corners_of(cells, i, shape);
    for (std::int64_t c = 0; c < shape.channels; ++c) {
      const T* plane = input + c * shape.volume;
      T value = T(0);
      if (corners.all_inside) [[likely]] {
        for (int k = 0; k < corners.kCount; ++k) value += corners.weight[k] * plane[corners.offset[k]];
      } else {
        for (int k = 0; k < corners.kCount; ++k) {
          if (corners.inside[k]) value += corners.weight[k] * plane[corners.offset[k]];
        }
        if (is_nan_point(cells, i)) value = std::numeric_limits<T>::quiet_NaN();
      }
      output[c * shape.points + i] = value;
    }
  }
}

template <class T, int Dims>
void sample_nearest(const T* input, const Cells<T, Dims>& cells, int count, const GridSampleShape& shape,
                    T* output) {
  for (int i = 0; i < count; ++i) {
    const Corners<T, Dims> corners = corners_of(cells, i, shape);
    const bool nan = is_nan_point(cells, i);
    for (std::int64_t c = 0; c < shape.channels; ++c) {
      T value = corners.inside[0] ? input[c * shape.volume + corners.offset[0]] : T(0);
      if (nan) value = std::numeric_limits<T>::quiet_NaN();
      output[c * shape.points + i] = value;
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

/// Adds one point's gradient to the (at most 2^Dims) voxels it was sampled from.
template <class T, int Dims>
void scatter_point(const T* grad_output, const Cells<T, Dims>& cells, int i, const GridSampleShape& shape,
                   bool linear, T* grad_input) {
  if (is_nan_point(cells, i)) return;
  const Corners<T, Dims> corners = corners_of(cells, i, shape);
  const int used = linear ? corners.kCount : 1;
  for (std::int64_t c = 0; c < shape.channels; ++c) {
    const T grad = grad_output[c * shape.points];
    T* plane = grad_input + c * shape.volume;
    if (corners.all_inside) {
      for (int k = 0; k < used; ++k) plane[corners.offset[k]] += corners.weight[k] * grad;
    } else {
      for (int k = 0; k < used; ++k) {
        if (corners.inside[k]) plane[corners.offset[k]] += corners.weight[k] * grad;
      }
    }
  }
}

/// Points of one batch entry sorted by their cell on the outermost axis, in the order of points within a
/// slab. Slab s holds cell s - 1 and touches planes s - 1 and s, so slabs of equal parity never meet.
struct Slabs {
  std::vector<std::int64_t> start;  // first position of each slab in `order`, and the end
  std::vector<std::int32_t> order;
};

template <class T, int Dims>
Slabs sort_into_slabs(const T* grid, const GridSampleShape& shape, const GridSampleOptions& options) {
  CINNABAR_CHECK(shape.points <= std::numeric_limits<std::int32_t>::max(), "grid_sample", shape.points,
                 " points in one batch entry are too many");
  constexpr auto kOuter = static_cast<std::size_t>(Dims - 1);
  const std::int32_t size = shape.extent[kOuter];
  const auto slabs = static_cast<std::size_t>(size) + 1;
  const auto chunks = static_cast<std::size_t>((shape.points + kChunk - 1) / kChunk);
  std::vector<std::int32_t> slab_of(static_cast<std::size_t>(shape.points));
  std::vector<std::int64_t> next(chunks * (slabs + 1), 0);  // one more slab takes the points outside
  const auto for_chunks = [&](const auto& body) {
    parallel_for(static_cast<std::int64_t>(chunks), 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t chunk = first; chunk < last; ++chunk) {
        body(&next[static_cast<std::size_t>(chunk) * (slabs + 1)], chunk * kChunk,
             std::min((chunk + 1) * kChunk, shape.points));
      }
    });
  };
  for_chunks([&](std::int64_t* counts, std::int64_t first, std::int64_t last) {
    Cells<T, Dims> cells;
    for (std::int64_t p = first; p < last; p += kBlock) {
      const int count = static_cast<int>(std::min<std::int64_t>(kBlock, last - p));
      locate(grid + p * Dims, count, shape, options, cells);
      for (int i = 0; i < count; ++i) {
        const std::int32_t cell = cells.cell[kOuter][static_cast<std::size_t>(i)];
        const std::int32_t slab = cell >= -1 && cell < size ? cell + 1 : size + 1;
        slab_of[static_cast<std::size_t>(p + i)] = slab;
        ++counts[slab];
      }
    }
  });
  Slabs result;
  std::int64_t total = 0;
  for (std::size_t slab = 0; slab <= slabs; ++slab) {
    result.start.push_back(total);
    for (std::size_t chunk = 0; chunk < chunks; ++chunk) {
      total += std::exchange(next[chunk * (slabs + 1) + slab], total);
    }
  }
  result.order.resize(static_cast<std::size_t>(shape.points));
  for_chunks([&](std::int64_t* places, std::int64_t first, std::int64_t last) {
    for (std::int64_t p = first; p < last; ++p) {
      std::int64_t& place = places[slab_of[static_cast<std::size_t>(p)]];
      result.order[static_cast<std::size_t>(place++)] = static_cast<std::int32_t>(p);
    }
  });
  return result;
}

template <class T, int Dims>
void run_backward_input(const Tensor& grad_output, const Tensor& grid, const GridSampleOptions& options,
                        const GridSampleShape& shape, Tensor& grad_input) {
  zero_bytes(grad_input.raw(), grad_input.device(), grad_input.bytes());
  const bool linear = options.interpolation == Interpolation::linear;
  for (std::int64_t n = 0; n < shape.batch; ++n) {
    const T* points = grid.data<T>() + n * shape.points * Dims;
    const T* grad = grad_output.data<T>() + n * shape.channels * shape.points;
    T* target = grad_input.data<T>() + n * shape.channels * shape.volume;
    const Slabs slabs = sort_into_slabs<T, Dims>(points, shape, options);
    const auto scatter_slab = [&](std::int64_t slab) {
      Cells<T, Dims> cells;
      std::array<T, kBlock * Dims> coordinates;
      const std::int64_t end = slabs.start[static_cast<std::size_t>(slab) + 1];
      for (std::int64_t k = slabs.start[static_cast<std::size_t>(slab)]; k < end; k += kBlock) {
        const int count = static_cast<int>(std::min<std::int64_t>(kBlock, end - k));
        const std::int32_t* order = &slabs.order[static_cast<std::size_t>(k)];
        for (int i = 0; i < count; ++i) {
          std::copy_n(points + std::int64_t{order[i]} * Dims, Dims,
                      &coordinates[static_cast<std::size_t>(i * Dims)]);
        }
        locate(coordinates.data(), count, shape, options, cells);
        for (int i = 0; i < count; ++i) scatter_point(grad + order[i], cells, i, shape, linear, target);
      }
    };
    const std::int64_t count = static_cast<std::int64_t>(slabs.start.size()) - 1;
    for (std::int64_t parity = 0; parity < 2; ++parity) {
      parallel_for((count + 1 - parity) / 2, 1 + 1024 * count / (shape.points + 1),
                   [&](std::int64_t first, std::int64_t last) {
                     for (std::int64_t i = first; i < last; ++i) scatter_slab(2 * i + parity);
                   });
    }
  }
}

template <class T, int Dims>
void grid_gradient(const T* grad_output, const T* input, const Cells<T, Dims>& cells, int count,
                   const GridSampleShape& shape, T* grad_grid) {
  for (int i = 0; i < count; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const Corners<T, Dims> corners = corners_of(cells, i, shape);
    T value[Corners<T, Dims>::kCount] = {};  // channel sum of grad_output times corner value
    for (std::int64_t c = 0; c < shape.channels; ++c) {
      const T* plane = input + c * shape.volume;
      const T grad = grad_output[c * shape.points + i];
      for (int k = 0; k < corners.kCount; ++k) {
        if (corners.all_inside || corners.inside[k]) value[k] += grad * plane[corners.offset[k]];
      }
    }
    for (int axis = 0; axis < Dims; ++axis) {
      T sum = T(0);
      for (int k = 0; k < corners.kCount; ++k) {
        T weight = ((k >> axis) & 1) != 0 ? T(1) : T(-1);
        for (int other = 0; other < Dims; ++other) {
          const T fraction = cells.fraction[static_cast<std::size_t>(other)][at];
          if (other != axis) weight *= ((k >> other) & 1) != 0 ? fraction : T(1) - fraction;
        }
        sum += weight * value[k];
      }
      if (is_nan_point(cells, i)) sum = std::numeric_limits<T>::quiet_NaN();
      grad_grid[i * Dims + axis] = sum * cells.slope[static_cast<std::size_t>(axis)][at];
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
