#pragma once

// The gradient of a flow's maps on CUDA. A thread adds up what a cell's gradient gains while its point stays
// there, and passes it on in 64-bit fixed point (fixed_point.cuh), so the sums do not depend on their order.
// A first sweep finds the largest term, which sets the fixed point's unit.

#include "kernels/cuda/cpab_field.cuh"
#include "kernels/cuda/fixed_point.cuh"

namespace cinnabar::cuda {

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

/// visit_points for walks back: calls visit(field, gain, n, p) and passes on what the thread's CellGain has
/// gained.
template <int D, class Visit>
__device__ __forceinline__ void visit_points_back(const FlowInput& in, SharedPointer<float4> table,
                                                  const MapGradient& grad_maps, const Visit& visit) {
  for (std::int64_t n = blockIdx.y; n < in.batch; n += gridDim.y) {
    const BlockField<D> field = load_field<D>(in, n, table);
    const std::int64_t first =
        static_cast<std::int64_t>(blockIdx.x) * (kFlowBlock * kPointsPerThread) + threadIdx.x;
    CellGain<D> gain(grad_maps, in.cells, n);
    for (int k = 0; k < kPointsPerThread; ++k) visit(field, gain, n, first + k * kFlowBlock);
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

/// Assigns grad_maps; sweep(target) launches a kernel that calls visit_points_back with it.
template <int D, class Sweep>
void sum_map_gradient(const char* op, const FlowInput& in, const Sweep& sweep, Tensor& grad_maps) {
  const Device device = grad_maps.device();
  Tensor peak = Tensor::zeros({1}, DType::i32, device);
  Tensor sums = Tensor::zeros({in.batch, 2, in.cells, D * (D + 1)}, DType::i64, device);
  // A thread passes on at most one term for each of the 1024 (4096 in 1-D) moves of its points.
  MapGradient target{nullptr, reinterpret_cast<unsigned*>(peak.data<std::int32_t>()),
                     fixed_point_bits(in.count * (D == 1 ? 4096 : 1024))};
  sweep(target);
  target.sums = reinterpret_cast<long long*>(sums.data<std::int64_t>());
  sweep(target);
  launch(op, cpab_collect_cell_kernel<D>, cover(in.batch * in.cells, 64), device, in, target,
         grad_maps.data<float>());
}

}  // namespace cinnabar::cuda
