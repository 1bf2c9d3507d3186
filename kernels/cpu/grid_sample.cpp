#include "kernels/grid_sample.hpp"

#include <algorithm>
#include <array>
#include <span>
#include <type_traits>

#include "kernels/cpu/sample_block.hpp"
#include "kernels/cpu/scatter.hpp"
#include "kernels/parallel.hpp"

namespace cinnabar::cpu {
namespace {

template <class T, int Dims>
void run_forward(const Tensor& input, const Tensor& grid, const GridSampleOptions& options,
                 const GridSampleShape& shape, Tensor& output) {
  const T* input_data = input.data<T>();
  const T* grid_data = grid.data<T>();
  T* output_data = output.data<T>();
  for_sample_blocks(shape, [&](std::int64_t n, std::int64_t first, int count) {
    SampleCells<T, Dims> cells;
    locate_samples(grid_data + (n * shape.points + first) * Dims, count, shape, options, cells);
    const T* image = input_data + n * shape.channels * shape.volume;
    T* target = output_data + n * shape.channels * shape.points + first;
    sample_block(image, cells, count, shape, options, target);
  });
}

/// Points are sorted by their cell on the outermost axis: cell s - 1 touches planes s - 1 and s of the image.
template <class T, int Dims>
void run_backward_input(const Tensor& grad_output, const Tensor& grid, const GridSampleOptions& options,
                        const GridSampleShape& shape, Tensor& grad_input) {
  zero_bytes(grad_input.raw(), grad_input.device(), grad_input.bytes());
  constexpr auto kOuter = static_cast<std::size_t>(Dims - 1);
  const bool linear = options.interpolation == Interpolation::linear;
  const auto offsets = sample_corner_offsets<Dims>(shape);
  for (std::int64_t n = 0; n < shape.batch; ++n) {
    const T* points = grid.data<T>() + n * shape.points * Dims;
    const T* grad = grad_output.data<T>() + n * shape.channels * shape.points;
    T* target = grad_input.data<T>() + n * shape.channels * shape.volume;
    const auto find_slabs = [&](std::int64_t begin, std::int64_t end, std::int32_t* slab) {
      SampleCells<T, Dims> cells;
      for (std::int64_t p = begin; p < end; p += kSampleBlock) {
        const int count = static_cast<int>(std::min<std::int64_t>(kSampleBlock, end - p));
        locate_samples(points + p * Dims, count, shape, options, cells);
        for (int i = 0; i < count; ++i) {
          const std::int32_t cell = cells.cell[kOuter][static_cast<std::size_t>(i)];
          *slab++ = cell >= -1 && cell < shape.extent[kOuter] ? cell + 1 : kNoSlab;
        }
      }
    };
    const auto deposit = [&](std::span<const std::uint32_t> items) {
      SampleCells<T, Dims> cells;
      std::array<T, kSampleBlock * Dims> coordinates;
      for (; !items.empty(); items = items.subspan(std::min<std::size_t>(kSampleBlock, items.size()))) {
        const int count = static_cast<int>(std::min<std::size_t>(kSampleBlock, items.size()));
        T* next = coordinates.data();
        for (const std::uint32_t item : items.first(static_cast<std::size_t>(count))) {
          next = std::copy_n(points + std::int64_t{item} * Dims, Dims, next);
        }
        locate_samples(coordinates.data(), count, shape, options, cells);
        for (int i = 0; i < count; ++i) {
          const T* first = grad + items[static_cast<std::size_t>(i)];
          scatter_sample(first, sample_point_at(cells, i, shape), offsets, shape, linear, target);
        }
      }
    };
    scatter_by_slab(shape.points, shape.extent[kOuter] + std::int64_t{1}, find_slabs, deposit);
  }
}

template <class T, int Dims>
void run_backward_grid(const Tensor& grad_output, const Tensor& input, const Tensor& grid,
                       const GridSampleOptions& options, const GridSampleShape& shape, Tensor& grad_grid) {
  const T* grad_data = grad_output.data<T>();
  const T* input_data = input.data<T>();
  const T* grid_data = grid.data<T>();
  T* target = grad_grid.data<T>();
  for_sample_blocks(shape, [&](std::int64_t n, std::int64_t first, int count) {
    SampleCells<T, Dims> cells;
    const std::int64_t at = (n * shape.points + first) * Dims;
    locate_samples(grid_data + at, count, shape, options, cells);
    sample_gradients(grad_data + n * shape.channels * shape.points + first,
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
