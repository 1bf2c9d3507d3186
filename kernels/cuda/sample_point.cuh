#pragma once

// What the kernels that sample images share: where a point falls, its corners, and the three things to do
// there.

#include "kernels/cuda/fixed_point.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/grid_position.hpp"
#include "kernels/grid_sample.hpp"

namespace cinnabar::cuda {

/// One call, as the kernels read it.
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
__device__ __forceinline__ PointCell<Dims> locate_sample(const float* coordinates,
                                                         const SampleGeometry& geometry) {
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

/// All channels of one batch entry at a point: from `plane` to `target`, channels `volume` and `points`
/// apart.
template <int Dims>
__device__ __forceinline__ void sample_channels(const PointCell<Dims>& point, const SampleGeometry& geometry,
                                                const float* plane, float* target) {
  Corners<Dims> corners = corners_of(point, geometry);
  if (geometry.nearest) corners.inside &= 1u;
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

/// Adds one batch entry's gradient at a point, times `factor`, to the fixed-point sums of the image. Where
/// the point of the next lane lies in the next cell along x, a lane passes its upper-x terms on by shuffle
/// instead of adding them: about 4 instead of 8 atomics per point and channel on smooth fields. All lanes of
/// a warp must call; those that are not `active` add nothing.
template <int Dims>
__device__ __forceinline__ void scatter_channels(const PointCell<Dims>& point, const SampleGeometry& geometry,
                                                 bool active, const float* grad, float factor,
                                                 long long* plane) {
  Corners<Dims> corners = corners_of(point, geometry);
  const std::int64_t number = active ? cell_number(point, geometry) : -2;
  if (geometry.nearest) corners.inside &= 1u;
  if (number == -2) corners.inside = 0;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t next = __shfl_down_sync(0xFFFFFFFFu, number, 1);
  const bool gives = lane < 31 && number >= 0 && next == number + 1;
  const bool given = __shfl_up_sync(0xFFFFFFFFu, gives ? 1 : 0, 1) != 0 && lane > 0;
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

/// Gradient with respect to the coordinates of a point.
template <int Dims>
__device__ __forceinline__ void coordinate_gradient(const PointCell<Dims>& point,
                                                    const SampleGeometry& geometry, const float* grad,
                                                    const float* plane, float* gradient) {
  const Corners<Dims> corners = corners_of(point, geometry);
  float value[Corners<Dims>::kCount] = {};  // channel sum of the gradient times corner value
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
    gradient[axis] = point.nan ? nanf("") : sum * point.slope[axis];
  }
}

inline SampleGeometry sample_geometry(const char* op, const GridSampleShape& shape,
                                      const GridSampleOptions& options, const Tensor& like) {
  require_dtype(op, like, DType::f32);
  constexpr std::int64_t kLargest = std::numeric_limits<std::int32_t>::max();
  CINNABAR_CHECK(shape.volume <= kLargest && shape.channels <= kLargest, op,
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

}  // namespace cinnabar::cuda
