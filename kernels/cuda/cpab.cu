// Work split: one thread walks one point; blocks of 128 threads take 512 points of one batch entry.
// Shared memory: the records of all cells (a whole step each, padded to float4) where they fit 24 KiB, 768
//   cells in 2-D and 384 in 3-D, else they are read through L1; a thread keeps its cell's record in registers
//   until it leaves the cell. The maps themselves are read only where a point leaves a cell.
// backward: the moves of a walk lie in local memory, 32 at a time. A thread adds up what a cell's gradient
//   gains while its point stays there, and passes it on in 64-bit fixed point (fixed_point.cuh), so the sums
//   do not depend on their order. A first sweep finds the largest term, which sets the fixed point's unit.
// Limiting resource: arithmetic latency and divergence; about 30 flops a whole step in 3-D and 8 bytes a
//   point. Compiled and emulated only, not yet run on a GPU.

#include "kernels/cpab.hpp"

#include "kernels/cuda/cpab_field.cuh"
#include "kernels/cuda/fixed_point.cuh"

namespace cinnabar::cuda {
namespace {

constexpr const char* kOp = "cpab";
constexpr int kBlock = kFlowBlock;

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

// budget: <=128 registers, 24576 B shared, 128 threads, occupancy >= 0.12
template <int D, bool kSteps>
__global__ void __launch_bounds__(kBlock) cpab_forward_point_kernel(FlowInput in, float* output) {
  CINNABAR_SHARED(float4, table, kSharedFours);
  visit_points<D>(in, table,
                  [&](const BlockField<D>& field, std::int64_t n, std::int64_t p, float* point, bool number) {
                    if (number) {
                      auto walk = make_walk<D, kSteps>(in.steps);
                      CpabMove<float, D> move;
                      walk.start(field, point);
                      while (walk.next(field, move)) {
                      }
                      walk.finish(in.grid, point);
                    } else {
#pragma unroll
                      for (int a = 0; a < D; ++a) point[a] = nanf("");
                    }
#pragma unroll
                    for (int a = 0; a < D; ++a) output[(n * in.count + p) * D + a] = point[a];
                  });
}

// budget: <=128 registers, 24576 B shared, 128 threads, occupancy >= 0.12
template <int D, bool kSteps>
__global__ void __launch_bounds__(kBlock) cpab_log_determinant_point_kernel(FlowInput in, float* output) {
  CINNABAR_SHARED(float4, table, kSharedFours);
  visit_points<D>(in, table,
                  [&](const BlockField<D>& field, std::int64_t n, std::int64_t p, float* point, bool number) {
                    auto walk = make_walk<D, kSteps>(in.steps);
                    output[n * in.count + p] =
                        number ? cpab_walk_log_determinant<float, D>(walk, field, point) : nanf("");
                  });
}

// budget: <=64 registers, 0 B shared, 128 threads, occupancy >= 0.5
template <int D>
__global__ void __launch_bounds__(kBlock) cpab_velocity_point_kernel(FlowInput in, float* velocity) {
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

/// Gradient of the cells' maps in fixed point: [batch, 2, cells, d, d+1], whole steps and parts apart.
struct MapGradient {
  long long* sums;  // null: only the peak is wanted
  unsigned* peak;   // bits of the largest |term|; null where no gradient is wanted
  int bits;
};

/// What a thread's point adds to the gradient of the cell it is in; passed on when it goes to another.
template <int D>
class CellGain {
 public:
  __device__ __forceinline__ CellGain(const MapGradient& target, std::int64_t cells, std::int64_t n)
      : target_(target), cells_(cells), first_(n * 2 * cells) {
    if (target.sums == nullptr) return;
    const unsigned peak_bits = *target.peak;
    factor_ = peak_is_finite(peak_bits) ? fixed_point_factor({target.bits, nullptr}, peak_bits) : 0.0f;
  }

  __device__ __forceinline__ void add_step(std::int32_t cell, const float* gain) { add(cell, gain, step_); }
  __device__ __forceinline__ void add_map(std::int32_t cell, const float* gain) { add(cell, gain, map_); }

  /// Passes on what is left.
  __device__ __forceinline__ void flush() {
    if (cell_ < 0) return;
#pragma unroll
    for (int k = 0; k < kEntries; ++k) {
      pass_on(step_[k], (first_ + cell_) * kEntries + k);
      pass_on(map_[k], (first_ + cells_ + cell_) * kEntries + k);
      step_[k] = map_[k] = 0.0f;
    }
    cell_ = -1;
  }
  __device__ __forceinline__ unsigned peak() const {
    return peak_;
  }

 private:
  static constexpr int kEntries = D * (D + 1);

  __device__ __forceinline__ void add(std::int32_t cell, const float* gain, float* sums) {
    if (target_.peak == nullptr) return;
    if (cell != cell_) {
      flush();
      cell_ = cell;
    }
#pragma unroll
    for (int k = 0; k < kEntries; ++k) sums[k] += gain[k];
  }
  __device__ __forceinline__ void pass_on(float term, std::int64_t index) {
    if (target_.sums == nullptr) {
      const unsigned bits = __float_as_uint(term) & 0x7FFFFFFFu;
      peak_ = bits > peak_ ? bits : peak_;
    } else if (term != 0.0f && factor_ != 0.0f) {
      add_fixed_point(target_.sums + index, to_fixed_point(term * factor_));
    }
  }

  MapGradient target_;
  std::int64_t cells_;
  std::int64_t first_;
  float factor_ = 0.0f;
  float step_[kEntries] = {};
  float map_[kEntries] = {};
  std::int32_t cell_ = -1;
  unsigned peak_ = 0;
};

// budget: <=168 registers, 24576 B shared, 128 threads, occupancy >= 0.12
template <int D, bool kSteps>
__global__ void __launch_bounds__(kBlock, 3)
    cpab_backward_point_kernel(FlowInput in, const float* grad_output, MapGradient grad_maps,
                               float* grad_points) {
  CINNABAR_SHARED(float4, table, kSharedFours);
  for (std::int64_t n = blockIdx.y; n < in.batch; n += gridDim.y) {
    const BlockField<D> field = load_field<D>(in, n, table);
    const std::int64_t first =
        static_cast<std::int64_t>(blockIdx.x) * (kBlock * kPointsPerThread) + threadIdx.x;
    CellGain<D> gain(grad_maps, in.cells, n);
    for (int k = 0; k < kPointsPerThread; ++k) {
      const std::int64_t p = first + k * kBlock;
      if (p >= in.count) break;
      const std::int64_t at = (n * in.count + p) * D;
      float point[D];
      float adjoint[D];
      const bool number = read_point<D>(in, n, p, point);
#pragma unroll
      for (int a = 0; a < D; ++a) adjoint[a] = grad_output[at + a] / static_cast<float>(in.grid.boxes[a]);
      if (number) {
        auto walk = make_walk<D, kSteps>(in.steps);
        cpab_walk_back<float, D>(walk, field, point, adjoint, gain);
      }
#pragma unroll
      for (int a = 0; a < D; ++a) {
        grad_points[at + a] = number ? adjoint[a] * static_cast<float>(in.grid.boxes[a]) : nanf("");
      }
    }
    gain.flush();
    if (grad_maps.peak != nullptr && grad_maps.sums == nullptr) atomicMax(grad_maps.peak, gain.peak());
  }
}

/// grad_maps = the sums of parts, and those of whole steps taken through the exponential.
// budget: <=255 registers, 0 B shared, 64 threads, occupancy >= 0.1
template <int D>
__global__ void __launch_bounds__(64)
    cpab_collect_cell_kernel(FlowInput in, MapGradient sums, float* grad_maps) {
  constexpr int kEntries = D * (D + 1);
  const std::int64_t i = thread_index();
  if (i >= in.batch * in.cells) return;
  const unsigned peak_bits = *sums.peak;
  const double unit = ldexp(1.0, peak_exponent(peak_bits) - sums.bits);
  const long long* from = sums.sums + ((i / in.cells) * 2 * in.cells + i % in.cells) * kEntries;
  double steps[kEntries];
  double total[kEntries];
  double map[kEntries];
  for (int k = 0; k < kEntries; ++k) {
    steps[k] = static_cast<double>(from[k]) * unit;
    total[k] = static_cast<double>(from[in.cells * kEntries + k]) * unit;
    map[k] = static_cast<double>(in.maps[i * kEntries + k]);
  }
  const float time = in.records[i * CpabRecord<D>::kSize + CpabRecord<D>::kTime];
  cpab_exponential_backward<D>(map, static_cast<double>(time), steps, total);
  for (int k = 0; k < kEntries; ++k) {
    grad_maps[i * kEntries + k] = peak_is_finite(peak_bits) ? static_cast<float>(total[k]) : nanf("");
  }
}

/// Calls fn(integral_constant of the number of axes).
template <class Function>
void dispatch_dims(int dims, const Function& fn) {
  if (dims == 1) return fn(std::integral_constant<int, 1>{});
  if (dims == 2) return fn(std::integral_constant<int, 2>{});
  fn(std::integral_constant<int, 3>{});
}

LaunchShape shape_of_launch(const FlowInput& in) {
  LaunchShape shape = cover_rows(in.count, in.batch, kBlock * kPointsPerThread);
  shape.block = dim3(kBlock);
  return shape;
}

/// Tensors of a call and the records made for it.
struct Call {
  Tensor records;
  FlowInput in;

  Call(const Tensor& maps, const Tensor& points, const CpabGrid& grid, const CpabOptions& options,
       const CpabShape& shape) {
    require_dtype(kOp, maps, DType::f32);
    in = {grid,
          nullptr,
          maps.data<float>(),
          points.data<float>(),
          shape.batch,
          shape.cells,
          shape.points,
          shape.shared_points,
          options.integrator == CpabIntegrator::steps ? options.steps : 0};
  }
  void prepare(const Tensor& maps) {
    dispatch_dims(in.grid.dims, [&](auto dims) {
      constexpr int D = decltype(dims)::value;
      records = Tensor::empty({in.batch * in.cells, CpabRecord<D>::kSize}, DType::f32, maps.device());
      in.records = records.data<float>();
      launch(kOp, cpab_prepare_cell_kernel<D>, cover(in.batch * in.cells, 64), maps.device(), in.grid,
             in.maps, in.batch * in.cells, static_cast<std::int32_t>(in.cells), in.steps,
             records.data<float>());
    });
  }
  bool empty() const { return in.batch == 0 || in.count == 0; }
};

void forward(const Tensor& maps, const Tensor& points, const CpabGrid& grid, const CpabOptions& options,
             Tensor& output) {
  Call call(maps, points, grid, options, cpab_shape(maps, points, grid, options, output));
  if (call.empty()) return;
  call.prepare(maps);
  dispatch_dims(grid.dims, [&](auto dims) {
    constexpr int D = decltype(dims)::value;
    launch(kOp, call.in.steps > 0 ? cpab_forward_point_kernel<D, true> : cpab_forward_point_kernel<D, false>,
           shape_of_launch(call.in), maps.device(), call.in, output.data<float>());
  });
}

void log_determinant(const Tensor& maps, const Tensor& points, const CpabGrid& grid,
                     const CpabOptions& options, Tensor& result) {
  Call call(maps, points, grid, options, cpab_shape(maps, points, grid, options, result, true));
  if (call.empty()) return;
  call.prepare(maps);
  dispatch_dims(grid.dims, [&](auto dims) {
    constexpr int D = decltype(dims)::value;
    launch(kOp,
           call.in.steps > 0 ? cpab_log_determinant_point_kernel<D, true>
                             : cpab_log_determinant_point_kernel<D, false>,
           shape_of_launch(call.in), maps.device(), call.in, result.data<float>());
  });
}

void velocity(const Tensor& maps, const Tensor& points, const CpabGrid& grid, Tensor& result) {
  Call call(maps, points, grid, {}, cpab_shape(maps, points, grid, {}, result));
  if (call.empty()) return;
  dispatch_dims(grid.dims, [&](auto dims) {
    launch(kOp, cpab_velocity_point_kernel<decltype(dims)::value>,
           cover_rows(call.in.count, call.in.batch, kBlock), maps.device(), call.in, result.data<float>());
  });
}

void backward(const Tensor& grad_output, const Tensor& maps, const Tensor& points, const CpabGrid& grid,
              const CpabOptions& options, Tensor& grad_maps, Tensor& grad_points) {
  Call call(maps, points, grid, options, cpab_shape(maps, points, grid, options, grad_output));
  cpab_check_gradients(maps, grad_output, grad_maps, grad_points);
  if (call.empty()) {
    if (grad_maps.defined()) grad_maps.fill(0.0);
    return;
  }
  call.prepare(maps);
  const Device device = maps.device();
  dispatch_dims(grid.dims, [&](auto dims) {
    constexpr int D = decltype(dims)::value;
    const auto kernel =
        call.in.steps > 0 ? cpab_backward_point_kernel<D, true> : cpab_backward_point_kernel<D, false>;
    const LaunchShape shape = shape_of_launch(call.in);
    const auto sweep = [&](const MapGradient& target) {
      launch(kOp, kernel, shape, device, call.in, grad_output.data<float>(), target,
             grad_points.data<float>());
    };
    if (!grad_maps.defined()) return sweep({nullptr, nullptr, 0});
    Tensor peak = Tensor::zeros({1}, DType::i32, device);
    Tensor sums = Tensor::zeros({call.in.batch, 2, call.in.cells, D * (D + 1)}, DType::i64, device);
    // A thread passes on at most one term for each of the 1024 (4096 in 1-D) moves of its points.
    MapGradient target{nullptr, reinterpret_cast<unsigned*>(peak.data<std::int32_t>()),
                       fixed_point_bits(call.in.count * (D == 1 ? 4096 : 1024))};
    sweep(target);
    target.sums = reinterpret_cast<long long*>(sums.data<std::int64_t>());
    sweep(target);
    launch(kOp, cpab_collect_cell_kernel<D>, cover(call.in.batch * call.in.cells, 64), device, call.in,
           target, grad_maps.data<float>());
  });
}

}  // namespace

extern const Cpab cpab;
const Cpab cpab{forward, backward, velocity, log_determinant};

}  // namespace cinnabar::cuda
