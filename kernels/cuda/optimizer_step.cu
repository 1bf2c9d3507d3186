// Optimiser updates of many parameters in one launch, and the unscaling of their gradients.
// Work split: the parameters of a launch (at most 40) are cut into chunks of 4096 elements, one block a
// chunk; a thread takes elements t, t + 256, ... of it. Addresses, lengths and step sizes travel in the
// launch's 4 KB of parameters, so a step of a network with a hundred small tensors is three launches without
// any copy. A block finds its parameter by bisection over the first chunks, six steps. Shared memory: none.
// Launch: 256 threads. Limiting resource: memory bandwidth (28 bytes an element for Adam, 20 for SGD with
// momentum, 8 for unscaling).
#include "kernels/optimizer_step.hpp"

#include "kernels/cuda/launch.cuh"

namespace cinnabar::cuda {

namespace {

constexpr const char* kOp = "optimizer_step";
constexpr int kBlock = 256;
constexpr std::int64_t kChunk = 4096;
constexpr int kParameters = 40;

struct SgdEntry {
  float* value;
  const float* grad;
  float* momentum;
  std::int64_t count;
  float share;
};

struct AdamEntry {
  float* value;
  const float* grad;
  float* first_moment;
  float* second_moment;
  float* largest;
  std::int64_t count;
  float rate;
  float root;
};

struct GradientEntry {
  float* grad;
  std::int64_t count;
};

/// The parameters of one launch; blocks first_chunk[p] to first_chunk[p + 1] work on parameter p.
template <class Entry>
struct Batch {
  Entry entry[kParameters];
  std::int32_t first_chunk[kParameters + 1];
  std::int32_t size;
};
static_assert(sizeof(Batch<AdamEntry>) + sizeof(AdamNumbers<float>) <= 4096, "a launch takes 4 KB");

template <class Entry>
__device__ __forceinline__ int entry_of_block(const Batch<Entry>& batch) {
  const auto block = static_cast<std::int32_t>(blockIdx.x);
  int low = 0;
  int end = batch.size;
  while (end - low > 1) {
    const int middle = (low + end) / 2;
    if (batch.first_chunk[middle] <= block) {
      low = middle;
    } else {
      end = middle;
    }
  }
  return low;
}

/// A block owns one chunk of one parameter.
// budget: <=32 registers, 0 B shared, 256 threads, occupancy >= 1.0
__global__ void __launch_bounds__(kBlock)
    optimizer_step_sgd_chunk_kernel(const Batch<SgdEntry> batch, SgdNumbers<float> update) {
  const int p = entry_of_block(batch);
  const SgdEntry entry = batch.entry[p];
  const std::int64_t start = (static_cast<std::int64_t>(blockIdx.x) - batch.first_chunk[p]) * kChunk;
  const std::int64_t end = min(entry.count, start + kChunk);
  for (std::int64_t i = start + threadIdx.x; i < end; i += kBlock) {
    update(entry.value[i], entry.grad[i], entry.momentum == nullptr ? nullptr : entry.momentum + i,
           entry.share);
  }
}

/// A block owns one chunk of one parameter.
// budget: <=40 registers, 0 B shared, 256 threads, occupancy >= 0.75
__global__ void __launch_bounds__(kBlock)
    optimizer_step_adam_chunk_kernel(const Batch<AdamEntry> batch, AdamNumbers<float> update) {
  const int p = entry_of_block(batch);
  const AdamEntry entry = batch.entry[p];
  const std::int64_t start = (static_cast<std::int64_t>(blockIdx.x) - batch.first_chunk[p]) * kChunk;
  const std::int64_t end = min(entry.count, start + kChunk);
  for (std::int64_t i = start + threadIdx.x; i < end; i += kBlock) {
    update(entry.value[i], entry.grad[i], entry.first_moment[i], entry.second_moment[i],
           entry.largest == nullptr ? nullptr : entry.largest + i, entry.rate, entry.root);
  }
}

/// A block owns one chunk of one gradient.
// budget: <=40 registers, 0 B shared, 256 threads, occupancy >= 0.75
__global__ void __launch_bounds__(kBlock)
    optimizer_step_unscale_chunk_kernel(const Batch<GradientEntry> batch, float factor, int* overflow) {
  const int p = entry_of_block(batch);
  const GradientEntry entry = batch.entry[p];
  const std::int64_t start = (static_cast<std::int64_t>(blockIdx.x) - batch.first_chunk[p]) * kChunk;
  const std::int64_t end = min(entry.count, start + kChunk);
  bool finite = true;
  for (std::int64_t i = start + threadIdx.x; i < end; i += kBlock) {
    const float g = entry.grad[i];
    finite = finite && is_finite(g);
    entry.grad[i] = g * factor;
  }
  if (!finite) atomicOr(overflow, 1);
}

/// Calls run(batch, blocks) for the entries in groups of at most kParameters and 2^30 chunks.
template <class Entry, class Parameter, class MakeEntry, class Run>
void for_each_batch(std::span<Parameter> parameters, const MakeEntry& make_entry, const Run& run) {
  constexpr std::int64_t kMostChunks = 1 << 30;
  Batch<Entry> batch{};
  std::int64_t chunks = 0;
  const auto flush = [&] {
    if (batch.size > 0) run(batch, chunks);
    batch = {};
    chunks = 0;
  };
  for (Parameter& parameter : parameters) {
    const Entry entry = make_entry(parameter);
    if (entry.count == 0) continue;
    const std::int64_t needed = (entry.count + kChunk - 1) / kChunk;
    CINNABAR_CHECK(needed <= kMostChunks, kOp, entry.count, " elements are too many");
    if (batch.size == kParameters || chunks + needed > kMostChunks) flush();
    batch.entry[batch.size] = entry;
    chunks += needed;
    batch.first_chunk[++batch.size] = static_cast<std::int32_t>(chunks);
  }
  flush();
}

void sgd(std::span<SgdParameter> parameters, const SgdOptions& options) {
  check_sgd(parameters, options);
  const auto entry = [&](SgdParameter& p) {
    require_dtype(kOp, p.value, DType::f32);
    return SgdEntry{p.value.data<float>(), p.grad.data<float>(),
                    p.momentum.defined() ? p.momentum.data<float>() : nullptr, p.value.numel(),
                    static_cast<float>(sgd_share(options, p))};
  };
  for_each_batch<SgdEntry>(parameters, entry, [&](const Batch<SgdEntry>& batch, std::int64_t chunks) {
    launch(kOp, optimizer_step_sgd_chunk_kernel, cover(chunks * kBlock, kBlock), parameters[0].value.device(),
           batch, SgdNumbers<float>(options));
  });
}

void adam(std::span<AdamParameter> parameters, const AdamOptions& options) {
  check_adam(parameters, options);
  const auto entry = [&](AdamParameter& p) {
    require_dtype(kOp, p.value, DType::f32);
    const AdamStepSize size = adam_step_size(options, p.step);
    return AdamEntry{p.value.data<float>(),
                     p.grad.data<float>(),
                     p.first_moment.data<float>(),
                     p.second_moment.data<float>(),
                     p.largest.defined() ? p.largest.data<float>() : nullptr,
                     p.value.numel(),
                     static_cast<float>(size.rate),
                     static_cast<float>(size.root)};
  };
  for_each_batch<AdamEntry>(parameters, entry, [&](const Batch<AdamEntry>& batch, std::int64_t chunks) {
    launch(kOp, optimizer_step_adam_chunk_kernel, cover(chunks * kBlock, kBlock),
           parameters[0].value.device(), batch, AdamNumbers<float>(options));
  });
}

void unscale(std::span<Tensor> gradients, double factor, Tensor& overflow) {
  check_unscale(gradients, factor, overflow);
  zero_bytes(overflow.raw(), overflow.device(), overflow.bytes());
  const auto entry = [](Tensor& gradient) {
    require_dtype(kOp, gradient, DType::f32);
    return GradientEntry{gradient.data<float>(), gradient.numel()};
  };
  for_each_batch<GradientEntry>(
      gradients, entry, [&](const Batch<GradientEntry>& batch, std::int64_t chunks) {
        launch(kOp, optimizer_step_unscale_chunk_kernel, cover(chunks * kBlock, kBlock), overflow.device(),
               batch, static_cast<float>(factor), overflow.data<std::int32_t>());
      });
}

}  // namespace

extern const OptimizerStep optimizer_step;
const OptimizerStep optimizer_step{sgd, adam, unscale};

}  // namespace cinnabar::cuda
