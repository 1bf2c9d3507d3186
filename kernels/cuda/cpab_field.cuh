#pragma once

// What the kernels of CPAB flows share: their input, one batch entry's cells as the walks read them, and the
// walk that the options name.

#include <type_traits>

#include "kernels/cpab.hpp"
#include "kernels/cpab_adjoint.hpp"
#include "kernels/cuda/launch.cuh"

namespace cinnabar::cuda {

/// Threads of a block, one point each: a walk waits for its own roots, and other warps fill the time.
constexpr int kFlowBlock = 128;
/// Blocks of an SM that registers must allow: of walks to the end, and of walks there and back.
constexpr int kForwardBlocks[] = {0, 8, 6, 4};
constexpr int kBackwardBlocks[] = {0, 2, 4, 3};

/// What the kernels read, of all batch entries.
struct FlowInput {
  CpabGrid grid;
  const float* records;
  const float* maps;
  const float* points;
  std::int64_t batch;
  std::int64_t cells;
  std::int64_t count;  // points of one batch entry
  bool shared_points;
  int steps;
};

template <int D, bool kSteps>
using Walk =
    std::conditional_t<kSteps, CpabStepWalk<float, D>,
                       std::conditional_t<D == 1, CpabLineWalk<float>, CpabExactWalk<float, D == 1 ? 2 : D>>>;

template <int D, bool kSteps>
__device__ __forceinline__ Walk<D, kSteps> make_walk(int steps) {
  if constexpr (kSteps) {
    return Walk<D, true>(steps);
  } else {
    return Walk<D, false>();
  }
}

/// One batch entry's cells, as the walks read them: through L1, which holds what neighbouring points share.
/// (A copy in shared memory takes 18 KiB a block for 12 x 12 boxes, more than its points come to need.)
template <int D>
struct BlockField {
  CpabGrid grid;
  const float4* records;
  const float* maps;

  __device__ __forceinline__ void load(std::int32_t cell, float* record) const {
    constexpr int kFours = CpabRecord<D>::kSize / 4;
#pragma unroll
    for (int k = 0; k < kFours; ++k) {
      const float4 four = records[cell * kFours + k];
      record[4 * k] = four.x;
      record[4 * k + 1] = four.y;
      record[4 * k + 2] = four.z;
      record[4 * k + 3] = four.w;
    }
  }
  __device__ __forceinline__ const float* map(std::int32_t cell) const {
    return maps + static_cast<std::int64_t>(cell) * (D * (D + 1));
  }
};

template <int D>
__device__ __forceinline__ BlockField<D> field_of(const FlowInput& in, std::int64_t n) {
  return {in.grid, reinterpret_cast<const float4*>(in.records + n * in.cells * CpabRecord<D>::kSize),
          in.maps + n * in.cells * (D * (D + 1))};
}

template <int D>
__device__ __forceinline__ bool read_point(const FlowInput& in, std::int64_t n, std::int64_t p,
                                           float* point) {
  const float* from = in.points + ((in.shared_points ? 0 : n * in.count) + p) * D;
  bool number = true;
#pragma unroll
  for (int a = 0; a < D; ++a) {
    point[a] = from[a];
    number = number && !isnan(point[a]);
  }
  return number;
}

/// Calls visit(field, n, p) for the thread's point p of every batch entry n, also for the p beyond the last
/// one.
template <int D, class Visit>
__device__ __forceinline__ void visit_points(const FlowInput& in, const Visit& visit) {
  const auto batch = static_cast<unsigned>(in.batch);
  for (unsigned n = blockIdx.y; n < batch; n += gridDim.y)
    visit(field_of<D>(in, n), n, blockIdx.x * kFlowBlock + threadIdx.x);
}

/// Moves a point to the end of its way.
template <int D, bool kSteps>
__device__ __forceinline__ void walk_to_end(const FlowInput& in, const BlockField<D>& field, float* point) {
  auto walk = make_walk<D, kSteps>(in.steps);
  CpabMove<float, D> move{};
  walk.start(field, point);
  while (walk.going()) walk.advance(field, move);
  walk.finish(in.grid, point);
}

// budget: <=168 registers, 0 B shared, 64 threads, occupancy >= 0.1
template <int D>
__global__ void __launch_bounds__(64)
    cpab_prepare_cell_kernel(CpabGrid grid, const float* maps, std::int64_t count, std::int32_t cells,
                             int steps, float* records) {
  const std::int64_t i = thread_index();
  if (i >= count) return;
  float record[CpabRecord<D>::kSize];
  cpab_prepare<float, D>(grid, static_cast<std::int32_t>(i % cells), steps, maps + i * (D * (D + 1)), record);
#pragma unroll
  for (int k = 0; k < CpabRecord<D>::kSize; ++k) records[i * CpabRecord<D>::kSize + k] = record[k];
}

/// Calls fn(integral_constant of the number of axes).
template <class Function>
void dispatch_dims(int dims, const Function& fn) {
  if (dims == 1) return fn(std::integral_constant<int, 1>{});
  if (dims == 2) return fn(std::integral_constant<int, 2>{});
  fn(std::integral_constant<int, 3>{});
}

/// For kernels that call visit_points.
inline LaunchShape shape_of_flow(const FlowInput& in) {
  return cover_rows(in.count, in.batch, kFlowBlock);
}

/// What a flow's kernels read of fields with `count` points each, all but the points.
inline FlowInput flow_input(const char* op, const Tensor& maps, const CpabGrid& grid,
                            const CpabOptions& options, std::int64_t count) {
  require_dtype(op, maps, DType::f32);
  CINNABAR_CHECK(count < (std::int64_t{1} << 31), op, "more than 2^31 points, got ", count);
  const int steps = options.integrator == CpabIntegrator::steps ? options.steps : 0;
  return {grid, nullptr, maps.data<float>(), nullptr, maps.shape(0), maps.shape(1), count, false, steps};
}

/// The records of all cells; sets in.records, and is to be kept as long.
inline Tensor prepare_records(const char* op, FlowInput& in, Device device) {
  Tensor records;
  dispatch_dims(in.grid.dims, [&](auto dims) {
    constexpr int D = decltype(dims)::value;
    records = Tensor::empty({in.batch * in.cells, CpabRecord<D>::kSize}, DType::f32, device);
    launch(op, cpab_prepare_cell_kernel<D>, cover(in.batch * in.cells, 64), device, in.grid, in.maps,
           in.batch * in.cells, static_cast<std::int32_t>(in.cells), in.steps, records.data<float>());
  });
  in.records = records.data<float>();
  return records;
}

}  // namespace cinnabar::cuda
