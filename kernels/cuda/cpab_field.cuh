#pragma once

// What the kernels of CPAB flows share: their input, one batch entry's cells as the walks read them, and the
// walk that the options name.

#include <type_traits>

#include "kernels/cpab.hpp"
#include "kernels/cpab_adjoint.hpp"
#include "kernels/cuda/launch.cuh"

namespace cinnabar::cuda {

constexpr int kFlowBlock = 128;
constexpr int kPointsPerThread = 1;  // a walk waits for its own roots: only other warps fill that time
constexpr int kSharedFours = 1536;   // 24 KiB of float4

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

/// One batch entry's cells, as the walks read them.
template <int D>
struct BlockField {
  static constexpr int kFours = CpabRecord<D>::kSize / 4;
  CpabGrid grid;
  SharedPointer<float4> table;  // null where the records did not fit
  const float4* records;
  const float* maps;

  __device__ __forceinline__ void load(std::int32_t cell, float* record) const {
#pragma unroll
    for (int k = 0; k < kFours; ++k) {
      const float4 four = fetch(cell * kFours + k);
      record[4 * k] = four.x;
      record[4 * k + 1] = four.y;
      record[4 * k + 2] = four.z;
      record[4 * k + 3] = four.w;
    }
  }
  __device__ __forceinline__ const float* map(std::int32_t cell) const {
    return maps + static_cast<std::int64_t>(cell) * (D * (D + 1));
  }

 private:
  __device__ __forceinline__ float4 fetch(std::int32_t index) const {
    if (table == nullptr) return records[index];
    const float4 four = table[index];
    return four;
  }
};

/// The field of batch entry n, its records copied to shared memory where they fit. All threads must call.
template <int D>
__device__ __forceinline__ BlockField<D> load_field(const FlowInput& in, std::int64_t n,
                                                    SharedPointer<float4> table) {
  const auto fours = static_cast<int>(in.cells) * BlockField<D>::kFours;
  const auto* records = reinterpret_cast<const float4*>(in.records) + n * fours;
  BlockField<D> field{in.grid, nullptr, records, in.maps + n * in.cells * (D * (D + 1))};
  if (fours > kSharedFours) return field;
  __syncthreads();  // the walks of the entry before are done
  for (int i = static_cast<int>(threadIdx.x); i < fours; i += kFlowBlock) table[i] = records[i];
  __syncthreads();
  field.table = table;
  return field;
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

/// Calls visit(field, n, p) for the block's points p of every batch entry n, and for those that a full block
/// would have beyond the last one. All threads must call.
template <int D, class Visit>
__device__ __forceinline__ void visit_points(const FlowInput& in, SharedPointer<float4> table,
                                             const Visit& visit) {
  for (std::int64_t n = blockIdx.y; n < in.batch; n += gridDim.y) {
    const BlockField<D> field = load_field<D>(in, n, table);
    const std::int64_t first =
        static_cast<std::int64_t>(blockIdx.x) * (kFlowBlock * kPointsPerThread) + threadIdx.x;
    for (int k = 0; k < kPointsPerThread; ++k) visit(field, n, first + k * kFlowBlock);
  }
}

/// Moves a point to the end of its way.
template <int D, bool kSteps>
__device__ __forceinline__ void walk_to_end(const FlowInput& in, const BlockField<D>& field, float* point) {
  auto walk = make_walk<D, kSteps>(in.steps);
  CpabMove<float, D> move;
  walk.start(field, point);
  while (walk.next(field, move)) {
  }
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
  LaunchShape shape = cover_rows(in.count, in.batch, kFlowBlock * kPointsPerThread);
  shape.block = dim3(kFlowBlock);
  return shape;
}

/// What a flow's kernels read of fields with `count` points each, all but the points.
inline FlowInput flow_input(const char* op, const Tensor& maps, const CpabGrid& grid,
                            const CpabOptions& options, std::int64_t count) {
  require_dtype(op, maps, DType::f32);
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
