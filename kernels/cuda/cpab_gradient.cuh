#pragma once

// The gradient of a flow's maps on CUDA. A thread adds up what a cell's gradient gains while its point stays
// there, and passes it on in 64-bit fixed point (fixed_point.cuh), so the sums do not depend on their order:
// to a slot in shared memory where the block holds one for the cell, else to the sums themselves.
//
// The largest term sets the fixed point's unit. A first sweep over a sixteenth of the points guesses it, a
// second one adds up and notes the largest term there is, and a third one does so again, by that term, where
// the guess was too small; else its blocks return at once.

#include "kernels/cuda/cpab_field.cuh"
#include "kernels/cuda/fixed_point.cuh"

namespace cinnabar::cuda {

constexpr int kGuessMargin = 4;  // bits by which the largest term may exceed the guess
constexpr int kGuessStep = 16;   // blocks of the guess: every so many-th

/// What the cells' gradient gains (kernels/cpab_adjoint.hpp), in fixed point: [batch, cells, d, d+1].
struct MapGradient {
  long long* sums;          // null: only the largest term is wanted
  const unsigned* guess;    // bits of the |term| that sets the unit
  unsigned* peak;           // bits of the largest |term|; null where no gradient is wanted
  const unsigned* unfit;    // the guess and peak of a sweep: do nothing where they fit; null: never mind
  int bits;                 // a term of the unit's size becomes about 2^bits
  int margin;               // the unit is that many bits above the guess
  unsigned block_step = 1;  // blocks take every so many-th part of the points
};

__device__ __forceinline__ bool guess_fits(const unsigned* guess_and_peak) {
  return !peak_is_finite(guess_and_peak[1]) ||
         peak_exponent(guess_and_peak[1]) <= peak_exponent(guess_and_peak[0]) + kGuessMargin;
}

/// Sums of some cells in shared memory, as 64-bit numbers in two words: shared memory adds 32 bits at a time.
template <int D>
struct CellSlots {
  static constexpr int kEntries = D * (D + 1);  // of a cell
  static constexpr int kCount = 64;
  static constexpr int kWords = kCount * (2 * kEntries + 1);
  SharedPointer<unsigned> words;  // the low words, the high words, and the cells + 1, 0 where a slot is free

  __device__ __forceinline__ void clear() const {
    for (int i = static_cast<int>(threadIdx.x); i < kWords; i += kFlowBlock) words[i] = 0;
  }
  /// The slot of a cell, taken if it is free; -1 where another cell has it.
  __device__ __forceinline__ int take(std::int32_t cell) const {
    const int slot = static_cast<int>(cell % kCount);
    const auto name = static_cast<unsigned>(cell) + 1;
    const unsigned owner = atomicCAS(&words[2 * kEntries * kCount + slot], 0u, name);
    return owner == 0 || owner == name ? slot : -1;
  }
  __device__ __forceinline__ void add(int slot, int entry, long long term) const {
    const int at = slot * kEntries + entry;
    const auto bits = static_cast<unsigned long long>(term);
    const auto low = static_cast<unsigned>(bits);
    auto high = static_cast<unsigned>(bits >> 32);
    const unsigned before = atomicAdd(&words[at], low);
    if (before + low < before) ++high;
    if (high != 0) atomicAdd(&words[kEntries * kCount + at], high);
  }
  /// Adds all to the sums of a batch entry.
  __device__ __forceinline__ void pass_on(long long* sums) const {
    for (int i = static_cast<int>(threadIdx.x); i < kCount * kEntries; i += kFlowBlock) {
      const unsigned long long bits =
          static_cast<unsigned long long>(words[kEntries * kCount + i]) << 32 | words[i];
      if (bits == 0) continue;
      const std::int64_t cell = static_cast<std::int64_t>(words[2 * kEntries * kCount + i / kEntries]) - 1;
      add_fixed_point(sums + cell * kEntries + i % kEntries, static_cast<long long>(bits));
    }
  }
};

/// What a thread's point adds to the gradient of the cell it is in; passed on when it goes to another.
template <int D>
class CellGain {
 public:
  __device__ __forceinline__ CellGain(const MapGradient& target, const CellSlots<D>& slots,
                                      std::int64_t cells, std::int64_t n)
      : target_(target), slots_(slots), first_(n * cells) {
    if (target.sums == nullptr) return;
    const unsigned guess = *target.guess;
    const FixedPointScale scale{target.bits - target.margin, nullptr};
    factor_ = peak_is_finite(guess) ? fixed_point_factor(scale, guess) : 0.0f;
  }

  __device__ __forceinline__ void add(std::int32_t cell, const float* gain) {
    if (target_.peak == nullptr) return;
    if (cell != cell_) {
      flush();
      cell_ = cell;
    }
#pragma unroll
    for (int k = 0; k < kEntries; ++k) sums_[k] += gain[k];
  }

  /// Passes on what is left.
  __device__ __forceinline__ void flush() {
    if (cell_ < 0) return;
    const int slot = target_.sums == nullptr ? -1 : slots_.take(cell_);
#pragma unroll
    for (int k = 0; k < kEntries; ++k) {
      pass_on(sums_[k], slot, k, (first_ + cell_) * kEntries + k);
      sums_[k] = 0.0f;
    }
    cell_ = -1;
  }
  __device__ __forceinline__ unsigned peak() const {
    return peak_;
  }

 private:
  static constexpr int kEntries = D * (D + 1);

  __device__ __forceinline__ void pass_on(float term, int slot, int entry, std::int64_t index) {
    const unsigned bits = __float_as_uint(term) & 0x7FFFFFFFu;
    peak_ = bits > peak_ ? bits : peak_;
    if (target_.sums == nullptr || term == 0.0f || factor_ == 0.0f) return;
    const long long fixed = to_fixed_point(term * factor_);
    if (slot >= 0) {
      slots_.add(slot, entry, fixed);
    } else {
      add_fixed_point(target_.sums + index, fixed);
    }
  }

  MapGradient target_;
  CellSlots<D> slots_;
  std::int64_t first_;
  float factor_ = 0.0f;
  float sums_[kEntries] = {};
  std::int32_t cell_ = -1;
  unsigned peak_ = 0;
};

/// All lanes of a warp must call.
__device__ __forceinline__ void note_peak(unsigned bits, unsigned* peak) {
  for (int offset = 16; offset > 0; offset /= 2) {
    const unsigned other = __shfl_down_sync(0xFFFFFFFFu, bits, offset);
    bits = other > bits ? other : bits;
  }
  if (threadIdx.x % 32 == 0) atomicMax(peak, bits);
}

/// visit_points for walks back: calls visit(field, gain, n, p) and passes on what the thread's CellGain has
/// gained.
template <int D, class Visit>
__device__ __forceinline__ void visit_points_back(const FlowInput& in, SharedPointer<unsigned> slot_words,
                                                  const MapGradient& grad_maps, const Visit& visit) {
  if (grad_maps.unfit != nullptr && guess_fits(grad_maps.unfit)) return;
  const CellSlots<D> slots{slot_words};
  const unsigned p = blockIdx.x * grad_maps.block_step * kFlowBlock + threadIdx.x;
  const auto batch = static_cast<unsigned>(in.batch);
  for (unsigned n = blockIdx.y; n < batch; n += gridDim.y) {
    slots.clear();
    __syncthreads();
    CellGain<D> gain(grad_maps, slots, in.cells, n);
    visit(field_of<D>(in, n), gain, n, p);
    gain.flush();
    __syncthreads();
    if (grad_maps.sums != nullptr) slots.pass_on(grad_maps.sums + n * in.cells * (D * (D + 1)));
    if (grad_maps.peak != nullptr) note_peak(gain.peak(), grad_maps.peak);
    __syncthreads();  // before the slots are cleared
  }
}

/// grad_maps = the sums, in the stepping scheme taken through the exponential.
// budget: <=255 registers, 0 B shared, 64 threads, occupancy >= 0.1
template <int D>
__global__ void __launch_bounds__(64)
    cpab_collect_cell_kernel(FlowInput in, MapGradient guessed, MapGradient redone, float* grad_maps) {
  constexpr int kEntries = D * (D + 1);
  const std::int64_t i = thread_index();
  if (i >= in.batch * in.cells) return;
  const MapGradient& sums = guess_fits(redone.unfit) ? guessed : redone;
  const bool finite = peak_is_finite(*guessed.peak);
  const double unit = ldexp(1.0, peak_exponent(*sums.guess) + sums.margin - sums.bits);
  const auto assign = [&](const double* numbers) {
    for (int k = 0; k < kEntries; ++k)
      grad_maps[i * kEntries + k] = finite ? static_cast<float>(numbers[k]) : nanf("");
  };
  double total[kEntries];
  for (int k = 0; k < kEntries; ++k) total[k] = static_cast<double>(sums.sums[i * kEntries + k]) * unit;
  if (in.steps == 0) return assign(total);
  double map[kEntries];
  double of_map[kEntries] = {};
  for (int k = 0; k < kEntries; ++k) map[k] = static_cast<double>(in.maps[i * kEntries + k]);
  cpab_exponential_backward<D>(map, 1.0 / in.steps, total, of_map);
  assign(of_map);
}

/// Assigns grad_maps; sweep(target) launches a kernel that calls visit_points_back with it.
template <int D, class Sweep>
void sum_map_gradient(const char* op, const FlowInput& in, const Sweep& sweep, Tensor& grad_maps) {
  const Device device = grad_maps.device();
  Tensor peaks = Tensor::zeros({3}, DType::i32, device);
  Tensor sums = Tensor::zeros({2, in.batch, in.cells, D * (D + 1)}, DType::i64, device);
  auto* peak = reinterpret_cast<unsigned*>(peaks.data<std::int32_t>());
  auto* sum = reinterpret_cast<long long*>(sums.data<std::int64_t>());
  // A thread passes on at most one term for each of the 1024 (4096 in 1-D) moves of its points.
  const int bits = fixed_point_bits(in.count * (D == 1 ? 4096 : 1024));
  const MapGradient guess{nullptr, nullptr, peak, nullptr, bits, 0, kGuessStep};
  const MapGradient guessed{sum, peak, peak + 1, nullptr, bits, kGuessMargin};
  const MapGradient redone{sum + sums.numel() / 2, peak + 1, peak + 2, peak, bits, 0};
  for (const MapGradient& target : {guess, guessed, redone}) sweep(target);
  launch(op, cpab_collect_cell_kernel<D>, cover(in.batch * in.cells, 64), device, in, guessed, redone,
         grad_maps.data<float>());
}

/// For kernels that call visit_points_back.
inline LaunchShape shape_of_sweep(const FlowInput& in, const MapGradient& target) {
  LaunchShape shape = shape_of_flow(in);
  shape.grid.x = (shape.grid.x + target.block_step - 1) / target.block_step;
  return shape;
}

}  // namespace cinnabar::cuda
