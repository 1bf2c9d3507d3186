// Work split: one thread per sampled point, 256 per block, blockIdx.y walks the batch; a thread locates its
//   point once and loops over the channels. 2-D and 3-D are one template over the number of axes.
// Shared memory: none. Neighbouring points of a smooth grid read the same sectors, which L1 serves.
// backward_input: fixed-point adds (fixed_point.cuh), so it is deterministic. Where the point of the next
// lane
//   lies in the next cell along x, a lane passes its upper-x terms on by shuffle instead of adding them:
//   about 4 instead of 8 atomics per point and channel on smooth fields.
// Limiting resource: memory, 20 bytes per point for one channel in 3-D; backward_input the L2 atomics.
// Offsets inside one channel are 32-bit (volumes below 2^31 voxels), everything else 64-bit.
// Compiled and emulated only, not yet run on a GPU.

#include "kernels/grid_sample.hpp"

#include "kernels/cuda/fixed_point.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/grid_position.hpp"

namespace cinnabar::cuda {
namespace {

constexpr int kBlock = 256;
constexpr const char* kOp = "grid_sample";

struct SampleGeometry {
  std::int32_t extent[3];
  std::int32_t volume;
  std::int64_t points;
  std::int64_t batch;
  int channels;
  Boundary boundary;
  bool align_corners;
  bool nearest;
};

/// Cell, fraction and slope of one point on every axis.
template <int Dims>
struct PointCell {
  AxisCell<float> axis[Dims];
  float slope[Dims];
  bool nan;
};

template <int Dims>
__device__ __forceinline__ PointCell<Dims> locate(const float* coordinates, const SampleGeometry& geometry) {
  PointCell<Dims> point;
  float sum = 0.0f;
#pragma unroll
  for (int axis = 0; axis < Dims; ++axis) {
    const GridPosition<float> at =
        bounded_position(coordinates[axis], geometry.extent[axis], geometry.boundary, geometry.align_corners);
    point.axis[axis] = geometry.nearest ? nearest_at(at.position) : cell_at(at.position);
    point.slope[axis] = at.slope;
    sum += point.axis[axis].fraction;
  }
  point.nan = isnan(sum);
  return point;
}

/// Offsets and weights of the 2^Dims corners; a cleared bit of `inside` marks a corner outside the image.
template <int Dims>
struct Corners {
  static constexpr int kCount = 1 << Dims;
  int offset[kCount];
  float weight[kCount];
  unsigned inside;
};

template <int Dims>
__device__ __forceinline__ Corners<Dims> corners_of(const PointCell<Dims>& point,
                                                    const SampleGeometry& geometry) {
  Corners<Dims> corners;
  corners.inside = 0;
#pragma unroll
  for (int k = 0; k < Corners<Dims>::kCount; ++k) {
    bool inside = true;
    int offset = 0;
    float weight = 1.0f;
#pragma unroll
    for (int axis = Dims - 1; axis >= 0; --axis) {
      const int high = (k >> axis) & 1;
      const int index = point.axis[axis].cell + high;
      const bool fits = index >= 0 && index < geometry.extent[axis];
      inside = inside && fits;
      offset = offset * geometry.extent[axis] + (fits ? index : 0);
    }
#pragma unroll
    for (int axis = 0; axis < Dims; ++axis) {
      const float fraction = point.axis[axis].fraction;
      weight *= ((k >> axis) & 1) != 0 ? fraction : 1.0f - fraction;
    }
    corners.offset[k] = offset;
    corners.weight[k] = weight;
    corners.inside |= inside ? 1u << k : 0u;
  }
  return corners;
}

// budget: <=64 registers, 0 B shared, 256 threads, occupancy >= 0.5
template <int Dims>
__global__ void __launch_bounds__(kBlock, 4)
    grid_sample_forward_point_kernel(const float* input, const float* grid, SampleGeometry geometry,
                                     float* output) {
  const std::int64_t p = thread_index();
  if (p >= geometry.points) return;
  for (std::int64_t n = blockIdx.y; n < geometry.batch; n += gridDim.y) {
    const PointCell<Dims> point = locate<Dims>(grid + (n * geometry.points + p) * Dims, geometry);
    Corners<Dims> corners = corners_of(point, geometry);
    if (geometry.nearest) corners.inside &= 1u;
    const float* plane = input + n * geometry.channels * geometry.volume;
    float* target = output + n * geometry.channels * geometry.points + p;
    for (int c = 0; c < geometry.channels; ++c) {
      float value = 0.0f;
#pragma unroll
      for (int k = 0; k < Corners<Dims>::kCount; ++k) {
        if ((corners.inside >> k) & 1u) value += corners.weight[k] * plane[corners.offset[k]];
      }
      *target = point.nan ? nanf("") : value;
      plane += geometry.volume;
      target += geometry.points;
    }
  }
}

/// Number of the cell in a grid with one more cell below on every axis; -2 where nothing is sampled.
template <int Dims>
__device__ __forceinline__ std::int64_t cell_number(const PointCell<Dims>& point,
                                                    const SampleGeometry& geometry) {
  std::int64_t number = 0;
#pragma unroll
  for (int axis = Dims - 1; axis >= 0; --axis) {
    const int cell = point.axis[axis].cell;
    if (cell < -1 || cell >= geometry.extent[axis]) return -2;
    number = number * (geometry.extent[axis] + 1) + cell + 1;
  }
  return point.nan ? -2 : number;
}

// budget: <=64 registers, 0 B shared, 256 threads, occupancy >= 0.5
template <int Dims>
__global__ void __launch_bounds__(kBlock, 4)
    grid_sample_backward_input_point_kernel(const float* grad_output, const float* grid,
                                            SampleGeometry geometry, FixedPointScale scale, long long* sums) {
  const unsigned peak_bits = *scale.peak;
  if (!peak_is_finite(peak_bits)) return;
  const float factor = fixed_point_factor(scale, peak_bits);
  const std::int64_t p = thread_index();
  const bool active = p < geometry.points;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (std::int64_t n = blockIdx.y; n < geometry.batch; n += gridDim.y) {
    PointCell<Dims> point{};
    Corners<Dims> corners{};
    std::int64_t number = -2;
    if (active) {
      point = locate<Dims>(grid + (n * geometry.points + p) * Dims, geometry);
      corners = corners_of(point, geometry);
      number = cell_number(point, geometry);
      if (geometry.nearest) corners.inside &= 1u;
      if (number == -2) corners.inside = 0;
    }
    const std::int64_t next = __shfl_down_sync(0xFFFFFFFFu, number, 1);
    const bool gives = lane < 31 && number >= 0 && next == number + 1;
    const bool given = __shfl_up_sync(0xFFFFFFFFu, gives ? 1 : 0, 1) != 0 && lane > 0;
    const float* grad = grad_output + n * geometry.channels * geometry.points + p;
    long long* plane = sums + n * geometry.channels * geometry.volume;
    for (int c = 0; c < geometry.channels; ++c) {
      const float term = active ? *grad * factor : 0.0f;
#pragma unroll
      for (int k = 0; k < Corners<Dims>::kCount; k += 2) {
        const bool low_inside = ((corners.inside >> k) & 1u) != 0;
        const bool high_inside = ((corners.inside >> (k + 1)) & 1u) != 0;
        long long low = low_inside ? to_fixed_point(corners.weight[k] * term) : 0;
        const long long high = high_inside ? to_fixed_point(corners.weight[k + 1] * term) : 0;
        const long long passed = __shfl_up_sync(0xFFFFFFFFu, high, 1);
        if (given) low += passed;
        if (low_inside) add_fixed_point(plane + corners.offset[k], low);
        if (high_inside && !gives) add_fixed_point(plane + corners.offset[k + 1], high);
      }
      grad += geometry.points;
      plane += geometry.volume;
    }
  }
}

// budget: <=64 registers, 0 B shared, 256 threads, occupancy >= 0.5
template <int Dims>
__global__ void __launch_bounds__(kBlock, 4)
    grid_sample_backward_grid_point_kernel(const float* grad_output, const float* input, const float* grid,
                                           SampleGeometry geometry, float* grad_grid) {
  const std::int64_t p = thread_index();
  if (p >= geometry.points) return;
  for (std::int64_t n = blockIdx.y; n < geometry.batch; n += gridDim.y) {
    const std::int64_t at = (n * geometry.points + p) * Dims;
    const PointCell<Dims> point = locate<Dims>(grid + at, geometry);
    const Corners<Dims> corners = corners_of(point, geometry);
    const float* plane = input + n * geometry.channels * geometry.volume;
    const float* grad = grad_output + n * geometry.channels * geometry.points + p;
    float value[Corners<Dims>::kCount] = {};  // channel sum of grad_output times corner value
    for (int c = 0; c < geometry.channels; ++c) {
      const float term = *grad;
#pragma unroll
      for (int k = 0; k < Corners<Dims>::kCount; ++k) {
        if ((corners.inside >> k) & 1u) value[k] += term * plane[corners.offset[k]];
      }
      plane += geometry.volume;
      grad += geometry.points;
    }
#pragma unroll
    for (int axis = 0; axis < Dims; ++axis) {
      float sum = 0.0f;
#pragma unroll
      for (int k = 0; k < Corners<Dims>::kCount; ++k) {
        float weight = ((k >> axis) & 1) != 0 ? 1.0f : -1.0f;
#pragma unroll
        for (int other = 0; other < Dims; ++other) {
          const float fraction = point.axis[other].fraction;
          if (other != axis) weight *= ((k >> other) & 1) != 0 ? fraction : 1.0f - fraction;
        }
        sum += weight * value[k];
      }
      grad_grid[at + axis] = point.nan ? nanf("") : sum * point.slope[axis];
    }
  }
}

SampleGeometry geometry_of(const GridSampleShape& shape, const GridSampleOptions& options,
                           const Tensor& like) {
  require_dtype(kOp, like, DType::f32);
  constexpr std::int64_t kLargest = std::numeric_limits<std::int32_t>::max();
  CINNABAR_CHECK(shape.volume <= kLargest && shape.channels <= kLargest, kOp,
                 "one channel must be below 2^31 voxels, got ", shape.volume);
  SampleGeometry geometry{};
  for (int axis = 0; axis < 3; ++axis) geometry.extent[axis] = shape.extent[axis];
  geometry.volume = static_cast<std::int32_t>(shape.volume);
  geometry.points = shape.points;
  geometry.batch = shape.batch;
  geometry.channels = static_cast<int>(shape.channels);
  geometry.boundary = options.boundary;
  geometry.align_corners = options.align_corners;
  geometry.nearest = options.interpolation == Interpolation::nearest;
  return geometry;
}

LaunchShape shape_of_launch(const SampleGeometry& geometry) {
  return cover_rows(geometry.points, geometry.batch, kBlock);
}

bool is_empty(const SampleGeometry& geometry) {
  return geometry.points == 0 || geometry.batch == 0;
}

void forward(const Tensor& input, const Tensor& grid, const GridSampleOptions& options, Tensor& output) {
  const GridSampleShape shape = grid_sample_shape(input, grid, output);
  const SampleGeometry geometry = geometry_of(shape, options, input);
  if (is_empty(geometry)) return;
  launch(kOp, shape.dims == 2 ? grid_sample_forward_point_kernel<2> : grid_sample_forward_point_kernel<3>,
         shape_of_launch(geometry), input.device(), input.data<float>(), grid.data<float>(), geometry,
         output.data<float>());
}

void backward_input(const Tensor& grad_output, const Tensor& grid, const GridSampleOptions& options,
                    Tensor& grad_input) {
  const GridSampleShape shape = grid_sample_shape(grad_input, grid, grad_output);
  const SampleGeometry geometry = geometry_of(shape, options, grid);
  if (grad_input.numel() == 0) return;
  if (is_empty(geometry)) return grad_input.fill(0.0);
  const Tensor peak = find_peak(kOp, grad_output);
  Tensor sums = Tensor::zeros(grad_input.shape(), DType::i64, grad_input.device());
  const FixedPointScale scale{fixed_point_bits(geometry.points),
                              reinterpret_cast<const unsigned*>(peak.data<std::int32_t>())};
  launch(kOp,
         shape.dims == 2 ? grid_sample_backward_input_point_kernel<2>
                         : grid_sample_backward_input_point_kernel<3>,
         shape_of_launch(geometry), grid.device(), grad_output.data<float>(), grid.data<float>(), geometry,
         scale, reinterpret_cast<long long*>(sums.data<std::int64_t>()));
  fixed_point_to_float(kOp, sums, scale, grad_input);
}

void backward_grid(const Tensor& grad_output, const Tensor& input, const Tensor& grid,
                   const GridSampleOptions& options, Tensor& grad_grid) {
  const GridSampleShape shape = grid_sample_shape(input, grid, grad_output);
  const SampleGeometry geometry = geometry_of(shape, options, input);
  require_same_shape(kOp, grad_grid, grid);
  require_dtype(kOp, grad_grid, DType::f32);
  require_same_device(kOp, grad_grid, grid);
  if (is_empty(geometry)) return;
  if (geometry.nearest) return grad_grid.fill(0.0);
  launch(
      kOp,
      shape.dims == 2 ? grid_sample_backward_grid_point_kernel<2> : grid_sample_backward_grid_point_kernel<3>,
      shape_of_launch(geometry), input.device(), grad_output.data<float>(), input.data<float>(),
      grid.data<float>(), geometry, grad_grid.data<float>());
}

}  // namespace

extern const GridSample grid_sample;
const GridSample grid_sample{forward, backward_input, backward_grid};

}  // namespace cinnabar::cuda
