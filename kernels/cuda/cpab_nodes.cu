// Work split: forward one thread a cell, which reads its d + 1 vertices; backward one thread a vertex, which
// gathers
//   from the cells around it, 8 and 4 in 2-D, up to 32 in 3-D. 128 threads a block, blockIdx.y walks the
//   batch.
// Shared memory: none; neighbours read the same vertices through L1.
// Limiting resource: launch latency up to some 10,000 cells, then memory: d (d + 1) floats a cell.

#include "kernels/cpab_nodes.hpp"

#include "kernels/cuda/cpab_field.cuh"

namespace cinnabar::cuda {
namespace {

constexpr const char* kOp = "cpab_nodes";
constexpr int kBlock = 128;

/// Extents of a call.
struct NodeShape {
  std::int64_t batch;
  std::int32_t cells;
  std::int32_t vertices;
  std::int64_t dim;
};

// budget: <=64 registers, 0 B shared, 128 threads, occupancy >= 0.5
template <int D>
__global__ void __launch_bounds__(kBlock)
    cpab_nodes_forward_cell_kernel(CpabGrid grid, NodeShape shape, const float* theta,
                                   const std::int32_t* places, float* maps) {
  const std::int64_t cell = thread_index();
  if (cell >= shape.cells) return;
  for (std::int64_t n = blockIdx.y; n < shape.batch; n += gridDim.y) {
    const auto velocity = [&](std::int32_t vertex, int axis) {
      const std::int32_t k = places[vertex * D + axis];
      return k < 0 ? 0.0f : theta[n * shape.dim + k];
    };
    float map[D * (D + 1)];
    cpab_map_of_nodes<float, D>(grid, static_cast<std::int32_t>(cell), velocity, map);
#pragma unroll
    for (int i = 0; i < D * (D + 1); ++i) maps[(n * shape.cells + cell) * (D * (D + 1)) + i] = map[i];
  }
}

// budget: <=64 registers, 0 B shared, 128 threads, occupancy >= 0.5
template <int D>
__global__ void __launch_bounds__(kBlock)
    cpab_nodes_backward_vertex_kernel(CpabGrid grid, NodeShape shape, const float* grad_maps,
                                      const std::int32_t* places, float* grad_theta) {
  const std::int64_t vertex = thread_index();
  if (vertex >= shape.vertices) return;
  for (std::int64_t n = blockIdx.y; n < shape.batch; n += gridDim.y) {
    float gradient[D];
    cpab_node_gradient<float, D>(grid, static_cast<std::int32_t>(vertex),
                                 grad_maps + n * shape.cells * (D * (D + 1)), gradient);
#pragma unroll
    for (int a = 0; a < D; ++a) {
      const std::int32_t k = places[vertex * D + a];
      if (k >= 0) grad_theta[n * shape.dim + k] = gradient[a];
    }
  }
}

NodeShape shape_of(const Tensor& theta, const Tensor& places, const CpabGrid& grid, const Tensor& maps) {
  cpab_nodes_check(theta, places, grid, maps);
  require_dtype(kOp, maps, DType::f32);
  return {maps.shape(0), static_cast<std::int32_t>(maps.shape(1)), static_cast<std::int32_t>(places.shape(0)),
          theta.shape(1)};
}

void forward(const Tensor& theta, const Tensor& places, const CpabGrid& grid, Tensor& maps) {
  const NodeShape shape = shape_of(theta, places, grid, maps);
  if (shape.batch == 0) return;
  dispatch_dims(grid.dims, [&](auto dims) {
    launch(kOp, cpab_nodes_forward_cell_kernel<decltype(dims)::value>,
           cover_rows(shape.cells, shape.batch, kBlock), maps.device(), grid, shape, theta.data<float>(),
           places.data<std::int32_t>(), maps.data<float>());
  });
}

void backward(const Tensor& grad_maps, const Tensor& places, const CpabGrid& grid, Tensor& grad_theta) {
  const NodeShape shape = shape_of(grad_theta, places, grid, grad_maps);
  if (grad_theta.numel() == 0) return;
  dispatch_dims(grid.dims, [&](auto dims) {
    launch(kOp, cpab_nodes_backward_vertex_kernel<decltype(dims)::value>,
           cover_rows(shape.vertices, shape.batch, kBlock), grad_maps.device(), grid, shape,
           grad_maps.data<float>(), places.data<std::int32_t>(), grad_theta.data<float>());
  });
}

}  // namespace

extern const CpabNodes cpab_nodes;
const CpabNodes cpab_nodes{forward, backward};

}  // namespace cinnabar::cuda
