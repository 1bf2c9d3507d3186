// Work split: one thread walks one point; blocks of 128 threads take 128 points of one batch entry. A thread
//   keeps its cell's record (padded to float4) in registers until its point leaves the cell, and every turn
//   of its loop is one round of a walk (cpab_exact_walk.hpp), so that points whose cells and moves differ
//   share the instructions.
// backward: the moves of a walk lie in local memory, 32 at a time; cpab_gradient.cuh sums what the cells
//   gain. Limiting resource: issue slots, of which divergence wastes half; about 340 instructions a round in
//   2-D and 8 bytes a point.

#include "kernels/cpab.hpp"

#include "kernels/cuda/cpab_gradient.cuh"

namespace cinnabar::cuda {
namespace {

constexpr const char* kOp = "cpab";

// budget: <=128 registers, 0 B shared, 128 threads, occupancy >= 0.25
template <int D, bool kSteps>
__global__ void __launch_bounds__(kFlowBlock, kForwardBlocks[D])
    cpab_forward_point_kernel(FlowInput in, float* output) {
  visit_points<D>(in, [&](const BlockField<D>& field, std::int64_t n, unsigned p) {
    if (p >= in.count) return;
    float point[D];
    const bool number = read_point<D>(in, n, p, point);
    if (number) walk_to_end<D, kSteps>(in, field, point);
#pragma unroll
    for (int a = 0; a < D; ++a) output[(n * in.count + p) * D + a] = number ? point[a] : nanf("");
  });
}

// budget: <=128 registers, 0 B shared, 128 threads, occupancy >= 0.25
template <int D, bool kSteps>
__global__ void __launch_bounds__(kFlowBlock) cpab_log_determinant_point_kernel(FlowInput in, float* output) {
  visit_points<D>(in, [&](const BlockField<D>& field, std::int64_t n, unsigned p) {
    if (p >= in.count) return;
    float point[D];
    const bool number = read_point<D>(in, n, p, point);
    auto walk = make_walk<D, kSteps>(in.steps);
    output[n * in.count + p] = number ? cpab_walk_log_determinant<float, D>(walk, field, point) : nanf("");
  });
}

// budget: <=64 registers, 0 B shared, 128 threads, occupancy >= 0.5
template <int D>
__global__ void __launch_bounds__(kFlowBlock) cpab_velocity_point_kernel(FlowInput in, float* velocity) {
  const std::int64_t p = thread_index();
  if (p >= in.count) return;
  for (std::int64_t n = blockIdx.y; n < in.batch; n += gridDim.y) {
    float point[D];
    read_point<D>(in, n, p, point);
    float v[D];
    cpab_velocity<float, D>(in.grid, in.maps + n * in.cells * (D * (D + 1)), point, v);
#pragma unroll
    for (int a = 0; a < D; ++a) velocity[(n * in.count + p) * D + a] = v[a];
  }
}

// budget: <=168 registers, 6400 B shared, 128 threads, occupancy >= 0.18
template <int D, bool kSteps>
__global__ void __launch_bounds__(kFlowBlock, kBackwardBlocks[D])
    cpab_backward_point_kernel(FlowInput in, const float* grad_output, MapGradient grad_maps,
                               float* grad_points) {
  CINNABAR_SHARED(unsigned, slots, CellSlots<D>::kWords);
  visit_points_back<D>(
      in, slots, grad_maps, [&](const BlockField<D>& field, CellGain<D>& gain, std::int64_t n, unsigned p) {
        if (p >= in.count) return;
        const std::int64_t at = (n * in.count + p) * D;
        float point[D];
        float adjoint[D];
        const bool number = read_point<D>(in, n, p, point);
        if (number) {
          auto walk = make_walk<D, kSteps>(in.steps);
          const auto seed = [&](const float*, float* start) {
#pragma unroll
            for (int a = 0; a < D; ++a) start[a] = grad_output[at + a] / static_cast<float>(in.grid.boxes[a]);
          };
          cpab_walk_back<float, D>(walk, field, point, seed, adjoint, gain);
        }
#pragma unroll
        for (int a = 0; a < D; ++a) {
          grad_points[at + a] = number ? adjoint[a] * static_cast<float>(in.grid.boxes[a]) : nanf("");
        }
      });
}

FlowInput input_of(const Tensor& maps, const Tensor& points, const CpabGrid& grid, const CpabOptions& options,
                   const CpabShape& shape) {
  FlowInput in = flow_input(kOp, maps, grid, options, shape.points);
  in.points = points.data<float>();
  in.shared_points = shape.shared_points;
  return in;
}

bool is_empty(const FlowInput& in) {
  return in.batch == 0 || in.count == 0;
}

void forward(const Tensor& maps, const Tensor& points, const CpabGrid& grid, const CpabOptions& options,
             Tensor& output) {
  FlowInput in = input_of(maps, points, grid, options, cpab_shape(maps, points, grid, options, output));
  if (is_empty(in)) return;
  const Tensor records = prepare_records(kOp, in, maps.device());
  dispatch_dims(grid.dims, [&](auto dims) {
    constexpr int D = decltype(dims)::value;
    launch(kOp, in.steps > 0 ? cpab_forward_point_kernel<D, true> : cpab_forward_point_kernel<D, false>,
           shape_of_flow(in), maps.device(), in, output.data<float>());
  });
}

void log_determinant(const Tensor& maps, const Tensor& points, const CpabGrid& grid,
                     const CpabOptions& options, Tensor& result) {
  FlowInput in = input_of(maps, points, grid, options, cpab_shape(maps, points, grid, options, result, true));
  if (is_empty(in)) return;
  const Tensor records = prepare_records(kOp, in, maps.device());
  dispatch_dims(grid.dims, [&](auto dims) {
    constexpr int D = decltype(dims)::value;
    launch(kOp,
           in.steps > 0 ? cpab_log_determinant_point_kernel<D, true>
                        : cpab_log_determinant_point_kernel<D, false>,
           shape_of_flow(in), maps.device(), in, result.data<float>());
  });
}

void velocity(const Tensor& maps, const Tensor& points, const CpabGrid& grid, Tensor& result) {
  const FlowInput in = input_of(maps, points, grid, {}, cpab_shape(maps, points, grid, {}, result));
  if (is_empty(in)) return;
  dispatch_dims(grid.dims, [&](auto dims) {
    launch(kOp, cpab_velocity_point_kernel<decltype(dims)::value>, cover_rows(in.count, in.batch, kFlowBlock),
           maps.device(), in, result.data<float>());
  });
}

void backward(const Tensor& grad_output, const Tensor& maps, const Tensor& points, const CpabGrid& grid,
              const CpabOptions& options, Tensor& grad_maps, Tensor& grad_points) {
  FlowInput in = input_of(maps, points, grid, options, cpab_shape(maps, points, grid, options, grad_output));
  cpab_check_gradients(maps, grad_output, grad_maps, grad_points);
  if (is_empty(in)) {
    if (grad_maps.defined()) grad_maps.fill(0.0);
    return;
  }
  const Tensor records = prepare_records(kOp, in, maps.device());
  dispatch_dims(grid.dims, [&](auto dims) {
    constexpr int D = decltype(dims)::value;
    const auto kernel =
        in.steps > 0 ? cpab_backward_point_kernel<D, true> : cpab_backward_point_kernel<D, false>;
    const auto sweep = [&](const MapGradient& target) {
      launch(kOp, kernel, shape_of_sweep(in, target), maps.device(), in, grad_output.data<float>(), target,
             grad_points.data<float>());
    };
    if (!grad_maps.defined()) return sweep({});
    sum_map_gradient<D>(kOp, in, sweep, grad_maps);
  });
}

}  // namespace

extern const Cpab cpab;
const Cpab cpab{forward, backward, velocity, log_determinant};

}  // namespace cinnabar::cuda
