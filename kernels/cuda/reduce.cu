// Reductions over any set of axes, in a fixed order.
// Work split: an output element and a chunk of its reduced elements belong to one thread (many outputs, or
// the innermost axis is kept, so that neighbouring threads read neighbouring elements) or to one block of 256
// threads (few outputs, innermost axis reduced). Chunks exist when outputs alone cannot fill a GPU; a second
// launch combines their partial results. How many there are depends on the shape alone.
// Sums are compensated (Kahan) within a thread and over the block's tree: float32 input, float32 result,
// error independent of the length. Shared memory: 2 floats a warp. Launch: 256 threads. Limiting resource:
// memory bandwidth (4 bytes an element).
#include "kernels/reduce.hpp"

#include <algorithm>

#include "engine/divide_up.hpp"
#include "kernels/cuda/launch.cuh"
#include "kernels/reduce_math.hpp"

namespace cinnabar::cuda {

namespace {

constexpr int kBlock = 256;
constexpr int kWarp = 32;
constexpr int kWarps = kBlock / kWarp;
constexpr std::int64_t kManyOutputs = 1 << 14;  // enough threads for one output each
constexpr std::int64_t kWantedThreads = 1 << 17;
constexpr std::int64_t kWantedBlocks = 1 << 10;
constexpr std::int64_t kThreadChunk = 64;  // elements that are worth a thread
constexpr std::int64_t kBlockChunk = 16 * kBlock;
constexpr std::int64_t kMaxChunks = 65535;  // grid.y

/// A partial result; `error` is what a sum still owes (Kahan), unused by the other reductions.
struct Partial {
  float value;
  float error;
};

__device__ __forceinline__ void add_term(Reduction op, Partial& partial, float term) {
  if (!combines_by_sum(op)) {
    partial.value = reduction_combine<float>(op, partial.value, term);
    return;
  }
  const float corrected = term - partial.error;
  const float total = partial.value + corrected;
  // An infinite total would turn the correction into NaN.
  partial.error = std::isinf(total) ? 0.0f : (total - partial.value) - corrected;
  partial.value = total;
}

__device__ __forceinline__ void add_partial(Reduction op, Partial& partial, const Partial& other) {
  add_term(op, partial, other.value);
  if (combines_by_sum(op)) add_term(op, partial, -other.error);
}

struct Source {
  const float* x;
  const float* reference;
  StridedLoop<1> kept;
  StridedLoop<1> reduced;
  std::int64_t chunk;   // reduced elements per partial result
  std::int64_t chunks;  // partial results per output
};

__device__ __forceinline__ float term_at(Reduction op, const Source& source, std::int64_t offset,
                                         float reference) {
  if (op == Reduction::sum_products) reference = source.reference[offset];
  return reduction_term<float, float>(op, source.x[offset], reference);
}

__device__ __forceinline__ float reference_of(Reduction op, const Source& source, std::int64_t k) {
  return uses_reference(op) && op != Reduction::sum_products ? source.reference[k] : 0.0f;
}

/// A thread owns one output (x) and one chunk (y): output[k * chunks + chunk].
// budget: <=50 registers, 0 B shared, 256 threads, occupancy >= 0.6
template <class Index>
__global__ void reduce_thread_kernel(Reduction op, Source source, float scale, float* output) {
  const std::int64_t k = thread_index();
  if (k >= source.kept.numel) return;
  std::int64_t base[1];
  source.kept.offsets<Index>(k, base);
  const float reference = reference_of(op, source, k);
  const StridedLoop<1>& loop = source.reduced;
  const std::int64_t length = loop.rank == 0 ? 1 : loop.extent[loop.rank - 1];
  const std::int64_t step = loop.rank == 0 ? 0 : loop.stride[loop.rank - 1][0];
  std::int64_t r = static_cast<std::int64_t>(blockIdx.y) * source.chunk;
  const std::int64_t end = min(loop.numel, r + source.chunk);
  Partial partial{reduction_identity<float>(op), 0.0f};
  while (r < end) {
    std::int64_t at[1];
    loop.offsets<Index>(r, at);
    const std::int64_t within = static_cast<std::int64_t>(static_cast<Index>(r) % static_cast<Index>(length));
    const std::int64_t count = min(end - r, length - within);
    for (std::int64_t i = 0; i < count; ++i) {
      add_term(op, partial, term_at(op, source, base[0] + at[0] + i * step, reference));
    }
    r += count;
  }
  output[k * source.chunks + blockIdx.y] = scale * (partial.value - partial.error);
}

/// A block owns one output and one chunk; thread t takes elements t, t + 256, ...
// budget: <=48 registers, 64 B shared, 256 threads, occupancy >= 0.6
template <class Index>
__global__ void reduce_block_kernel(Reduction op, Source source, float scale, float* output) {
  CINNABAR_SHARED(float, warp_value, kWarps);
  CINNABAR_SHARED(float, warp_error, kWarps);
  const std::int64_t k = blockIdx.x / source.chunks;
  const std::int64_t chunk = blockIdx.x % source.chunks;
  std::int64_t base[1];
  source.kept.offsets<Index>(k, base);
  const float reference = reference_of(op, source, k);
  const std::int64_t end = min(source.reduced.numel, (chunk + 1) * source.chunk);
  Partial partial{reduction_identity<float>(op), 0.0f};
  for (std::int64_t r = chunk * source.chunk + threadIdx.x; r < end; r += kBlock) {
    std::int64_t at[1];
    source.reduced.offsets<Index>(r, at);
    add_term(op, partial, term_at(op, source, base[0] + at[0], reference));
  }
  for (int apart = kWarp / 2; apart > 0; apart /= 2) {
    const Partial other{__shfl_down_sync(0xffffffffu, partial.value, apart),
                        __shfl_down_sync(0xffffffffu, partial.error, apart)};
    add_partial(op, partial, other);
  }
  if (threadIdx.x % kWarp == 0) {
    warp_value[threadIdx.x / kWarp] = partial.value;
    warp_error[threadIdx.x / kWarp] = partial.error;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int warp = 1; warp < kWarps; ++warp) {
    add_partial(op, partial, Partial{warp_value[warp], warp_error[warp]});
  }
  output[blockIdx.x] = scale * (partial.value - partial.error);
}

/// A thread owns one element of grad_x.
// budget: <=40 registers, 0 B shared, 256 threads, occupancy >= 0.75
template <class Index>
__global__ void reduce_backward_kernel(Reduction op, const float* grad, const float* x,
                                       const float* reference, StridedLoop<1> loop, float* grad_x) {
  const std::int64_t i = thread_index();
  if (i >= loop.numel) return;
  std::int64_t k[1];
  loop.offsets<Index>(i, k);
  grad_x[i] = reduction_gradient<float>(op, grad[k[0]], x[i], reference[k[0]]);
}

/// A thread owns one line and walks it; lines are neighbours in memory.
// budget: <=32 registers, 0 B shared, 256 threads, occupancy >= 1.0
__global__ void cumsum_thread_kernel(const float* x, AxisView view, bool reverse, float* y) {
  const std::int64_t line = thread_index();
  if (line >= view.outer * view.inner) return;
  const std::int64_t base = line / view.inner * view.length * view.inner + line % view.inner;
  Partial sum{0.0f, 0.0f};
  for (std::int64_t i = 0; i < view.length; ++i) {
    const std::int64_t at = base + (reverse ? view.length - 1 - i : i) * view.inner;
    add_term(Reduction::sum, sum, x[at]);
    y[at] = sum.value - sum.error;
  }
}

/// A block owns one line and scans it 256 elements at a time (Hillis and Steele), carrying the sum along.
// budget: <=32 registers, 2056 B shared, 256 threads, occupancy >= 1.0
__global__ void cumsum_block_kernel(const float* x, AxisView view, bool reverse, float* y) {
  CINNABAR_SHARED(float, scan, 2 * kBlock);
  CINNABAR_SHARED(float, carry, 2);
  const std::int64_t base = blockIdx.x / view.inner * view.length * view.inner + blockIdx.x % view.inner;
  const int t = static_cast<int>(threadIdx.x);
  if (t == 0) carry[0] = carry[1] = 0.0f;
  for (std::int64_t start = 0; start < view.length; start += kBlock) {
    const std::int64_t i = start + t;
    const std::int64_t at = base + (reverse ? view.length - 1 - i : i) * view.inner;
    SharedPointer<float> from = scan;
    SharedPointer<float> to = scan + kBlock;
    from[t] = i < view.length ? x[at] : 0.0f;
    __syncthreads();
    for (int apart = 1; apart < kBlock; apart *= 2) {
      to[t] = t >= apart ? from[t - apart] + from[t] : from[t];
      __syncthreads();
      const SharedPointer<float> swap = from;
      from = to;
      to = swap;
    }
    if (i < view.length) y[at] = (carry[0] - carry[1]) + from[t];
    __syncthreads();
    if (t == 0) {
      Partial sum{carry[0], carry[1]};
      add_term(Reduction::sum, sum, from[kBlock - 1]);
      carry[0] = sum.value;
      carry[1] = sum.error;
    }
    __syncthreads();
  }
}

bool fits_32_bit(const Tensor& x) {
  return x.numel() <= std::numeric_limits<std::int32_t>::max();
}

bool thread_per_output(const Source& source) {
  const StridedLoop<1>& kept = source.kept;
  const bool coalesced =
      kept.rank > 0 && kept.stride[kept.rank - 1][0] == 1 && kept.extent[kept.rank - 1] >= kWarp;
  return coalesced || kept.numel >= kManyOutputs || source.reduced.numel <= kWarp;
}

/// One launch: every output (or partial result) of `source`.
void reduce_once(Reduction op, const Source& source, bool thread_each, bool narrow, double scale,
                 Tensor& output) {
  const float factor = static_cast<float>(scale);
  float* out = output.data<float>();
  if (thread_each) {
    LaunchShape shape = cover(source.kept.numel, kBlock);
    shape.grid.y = static_cast<unsigned>(source.chunks);
    launch("reduce", narrow ? reduce_thread_kernel<std::uint32_t> : reduce_thread_kernel<std::uint64_t>,
           shape, output.device(), op, source, factor, out);
  } else {
    launch("reduce", narrow ? reduce_block_kernel<std::uint32_t> : reduce_block_kernel<std::uint64_t>,
           cover(source.kept.numel * source.chunks * kBlock, kBlock), output.device(), op, source, factor,
           out);
  }
}

void forward(Reduction op, const Tensor& x, const Tensor& reference, double scale, Tensor& output) {
  check_reduce(op, x, reference, output);
  require_dtype("reduce", x, DType::f32);
  if (output.numel() == 0) return;
  const ReductionAxes axes = reduction_axes(x.shape(), output.shape());
  Source source{x.data<float>(),
                reference.defined() ? reference.data<float>() : nullptr,
                axes.kept,
                axes.reduced,
                0,
                0};
  const bool thread_each = thread_per_output(source);
  const std::int64_t wanted = divide_up(thread_each ? kWantedThreads : kWantedBlocks, axes.kept.numel);
  const std::int64_t useful = divide_up(axes.reduced.numel, thread_each ? kThreadChunk : kBlockChunk);
  const std::int64_t limit = std::max<std::int64_t>(1, std::min({wanted, useful, kMaxChunks}));
  source.chunk = std::max<std::int64_t>(1, divide_up(axes.reduced.numel, limit));
  source.chunks = std::max<std::int64_t>(1, divide_up(axes.reduced.numel, source.chunk));
  const bool narrow = fits_32_bit(x);
  if (source.chunks == 1) {
    reduce_once(op, source, thread_each, narrow, scale, output);
    return;
  }
  Tensor partial = Tensor::empty({axes.kept.numel, source.chunks}, DType::f32, x.device());
  reduce_once(op, source, thread_each, narrow, 1.0, partial);
  Source second{partial.data<float>(), nullptr, {}, {}, source.chunks, 1};
  second.kept.append(axes.kept.numel, {source.chunks});
  second.reduced.append(source.chunks, {1});
  const Reduction combine = combines_by_sum(op) ? Reduction::sum : op;
  reduce_once(combine, second, thread_per_output(second), true, scale, output);
}

void backward(Reduction op, const Tensor& grad, const Tensor& x, const Tensor& reference, Tensor& grad_x) {
  check_reduce_backward(op, grad, x, reference, grad_x);
  require_dtype("reduce", x, DType::f32);
  if (x.numel() == 0) return;
  const auto loop = broadcast_loop<1>("reduce", x.shape(), {grad.shape()});
  launch("reduce",
         fits_32_bit(x) ? reduce_backward_kernel<std::uint32_t> : reduce_backward_kernel<std::uint64_t>,
         cover(x.numel(), kBlock), x.device(), op, grad.data<float>(), x.data<float>(),
         reference.data<float>(), loop, grad_x.data<float>());
}

void cumsum(const Tensor& x, int axis, bool reverse, Tensor& y) {
  check_cumsum(x, y);
  require_dtype("cumsum", x, DType::f32);
  if (x.numel() == 0) return;
  const AxisView view = axis_view(x.shape(), axis);
  const std::int64_t lines = view.outer * view.inner;
  const bool thread_each = view.inner >= kWarp || lines >= kManyOutputs || view.length <= kWarp;
  launch("cumsum", thread_each ? cumsum_thread_kernel : cumsum_block_kernel,
         cover(thread_each ? lines : lines * kBlock, kBlock), x.device(), x.data<float>(), view, reverse,
         y.data<float>());
}

}  // namespace

extern const Reduce reduce;
const Reduce reduce{forward, backward, cumsum};

}  // namespace cinnabar::cuda
