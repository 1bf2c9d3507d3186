// forward: one thread per grid point, 256 per block, blockIdx.y walks the batch. Writes 12 bytes per point in
//   3-D and reads nothing but the 48-byte matrix, which stays in L1: bound by the stores.
// backward: a reduction. A thread sums the 12 products of 16 points in float, then in double; block_sum adds
//   the threads of a block in a fixed order, one more block adds the blocks. 256 threads, 768 bytes of shared
//   memory. Reads 12 bytes per point: bound by memory.

#include "kernels/affine_grid.hpp"

#include "kernels/cuda/block_sum.cuh"
#include "kernels/cuda/launch.cuh"

namespace cinnabar::cuda {
namespace {

constexpr int kBlock = 256;
constexpr int kPointsPerThread = 16;
constexpr const char* kOp = "affine_grid";

struct GridGeometry {
  std::int32_t extent[3];  // along x, y, z
  std::int64_t points;
  std::int64_t batch;
  bool align_corners;
};

/// Base coordinates of point p: x, y(, z) and 1.
template <int Dims>
__device__ __forceinline__ void base_of(std::int64_t p, const GridGeometry& geometry, float* base) {
  auto index = static_cast<unsigned>(p);  // points < 2^31: 32-bit division is several times cheaper
#pragma unroll
  for (int axis = 0; axis < Dims; ++axis) {
    const auto size = static_cast<unsigned>(geometry.extent[axis]);
    base[axis] = base_coordinate<float>(index % size, size, geometry.align_corners);
    index /= size;
  }
  base[Dims] = 1.0f;
}

// budget: <=32 registers, 0 B shared, 256 threads, occupancy >= 1.0
template <int Dims>
__global__ void __launch_bounds__(kBlock, 4)
    affine_grid_forward_point_kernel(const float* theta, GridGeometry geometry, float* grid) {
  const std::int64_t p = thread_index();
  if (p >= geometry.points) return;
  float base[Dims + 1];
  base_of<Dims>(p, geometry, base);
  for (std::int64_t n = blockIdx.y; n < geometry.batch; n += gridDim.y) {
    const float* matrix = theta + n * Dims * (Dims + 1);
    float* point = grid + (n * geometry.points + p) * Dims;
#pragma unroll
    for (int r = 0; r < Dims; ++r) {
      float constant = matrix[r * (Dims + 1) + 1] * base[1] + matrix[r * (Dims + 1) + Dims];
      if (Dims == 3) constant += matrix[r * (Dims + 1) + 2] * base[2];
      point[r] = matrix[r * (Dims + 1)] * base[0] + constant;
    }
  }
}

/// Block (b, n) writes the sums of its chunk of batch entry n to partial[n][b].
// budget: <=96 registers, 768 B shared, 256 threads, occupancy >= 0.25
template <int Dims>
__global__ void __launch_bounds__(kBlock, 2)
    affine_grid_backward_chunk_kernel(const float* grad_grid, GridGeometry geometry, double* partial) {
  constexpr int kTerms = Dims * (Dims + 1);
  CINNABAR_SHARED(double, scratch, kTerms* kBlock / 32);
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kBlock * kPointsPerThread + threadIdx.x;
  for (std::int64_t n = blockIdx.y; n < geometry.batch; n += gridDim.y) {
    float sums[kTerms] = {};
    for (int k = 0; k < kPointsPerThread; ++k) {
      const std::int64_t p = first + static_cast<std::int64_t>(k) * kBlock;
      if (p >= geometry.points) break;
      float base[Dims + 1];
      base_of<Dims>(p, geometry, base);
      const float* grad = grad_grid + (n * geometry.points + p) * Dims;
#pragma unroll
      for (int term = 0; term < kTerms; ++term)
        sums[term] += grad[term / (Dims + 1)] * base[term % (Dims + 1)];
    }
    double totals[kTerms];
#pragma unroll
    for (int term = 0; term < kTerms; ++term) totals[term] = static_cast<double>(sums[term]);
    block_sum<kTerms, kBlock>(totals, scratch);
    if (threadIdx.x == 0) {
#pragma unroll
      for (int term = 0; term < kTerms; ++term) {
        partial[(n * gridDim.x + blockIdx.x) * kTerms + term] = totals[term];
      }
    }
    __syncthreads();
  }
}

GridGeometry geometry_of(const Tensor& grid, int dims, bool align_corners) {
  require_dtype(kOp, grid, DType::f32);
  GridGeometry geometry{{1, 1, 1}, 1, grid.shape(0), align_corners};
  for (int axis = 0; axis < dims; ++axis) {
    CINNABAR_CHECK(grid.shape(-2 - axis) <= std::numeric_limits<std::int32_t>::max() / 4, kOp,
                   "extent too large: ", grid);
    geometry.extent[axis] = static_cast<std::int32_t>(grid.shape(-2 - axis));
    geometry.points *= geometry.extent[axis];
  }
  CINNABAR_CHECK(geometry.points <= std::numeric_limits<std::int32_t>::max(), kOp, "too many points: ", grid);
  return geometry;
}

LaunchShape shape_of_launch(const GridGeometry& geometry, int points_per_block) {
  LaunchShape shape = cover_rows(geometry.points, geometry.batch, points_per_block);
  shape.block = dim3(kBlock);
  return shape;
}

void forward(const Tensor& theta, bool align_corners, Tensor& grid) {
  const int dims = affine_grid_dims(theta, grid);
  const GridGeometry geometry = geometry_of(grid, dims, align_corners);
  if (grid.numel() == 0) return;
  launch(kOp, dims == 2 ? affine_grid_forward_point_kernel<2> : affine_grid_forward_point_kernel<3>,
         shape_of_launch(geometry, kBlock), theta.device(), theta.data<float>(), geometry,
         grid.data<float>());
}

void backward(const Tensor& grad_grid, bool align_corners, Tensor& grad_theta) {
  const int dims = affine_grid_dims(grad_theta, grad_grid);
  const GridGeometry geometry = geometry_of(grad_grid, dims, align_corners);
  if (grad_theta.numel() == 0) return;
  const LaunchShape shape = shape_of_launch(geometry, kBlock * kPointsPerThread);
  const int terms = dims * (dims + 1);
  Tensor partial = Tensor::empty({geometry.batch, shape.grid.x, terms}, DType::f64, grad_grid.device());
  launch(kOp, dims == 2 ? affine_grid_backward_chunk_kernel<2> : affine_grid_backward_chunk_kernel<3>, shape,
         grad_grid.device(), grad_grid.data<float>(), geometry, partial.data<double>());
  const auto sum = dims == 2 ? sum_chunks<6, float> : sum_chunks<12, float>;
  sum(kOp, partial, geometry.batch, shape.grid.x, grad_theta.data<float>());
}

}  // namespace

extern const AffineGrid affine_grid;
const AffineGrid affine_grid{forward, backward};

}  // namespace cinnabar::cuda
