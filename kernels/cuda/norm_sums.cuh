#pragma once

// The sums behind norm.cu: over chunks of a set or of a channel in an image, then over the chunks, in float64
// and in an order fixed by the shape.

#include <algorithm>
#include <utility>

#include "kernels/cuda/block_sum.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/norm.hpp"

namespace cinnabar::cuda {
namespace {

constexpr const char* kOp = "norm";
constexpr int kBlock = 256;
constexpr std::int64_t kChunk = 32 * kBlock;
constexpr std::int64_t kFewVoxels = 32;
constexpr std::int64_t kImageChunk = 64;  // images a thread adds for one channel

/// What the pointwise kernels need of a set.
struct SetFactors {
  NormCenter<float> center;
  float inverse;  // 1 / deviation
  float mean_g;
  float mean_gz;
};

/// Channel and set of an element.
struct Place {
  std::int64_t channel, set;
};
template <class Index>
__device__ __forceinline__ Place place_of(std::int64_t i, const NormShape& shape) {
  const Index channels = static_cast<Index>(shape.channels);
  const Index plane = static_cast<Index>(i) / static_cast<Index>(shape.voxels);
  const Index image = plane / channels;
  const Index channel = plane - image * channels;
  if (shape.across_images) return {static_cast<std::int64_t>(channel), static_cast<std::int64_t>(channel)};
  const Index groups = static_cast<Index>(shape.groups);
  const Index group = groups == channels ? channel : channel / (channels / groups);
  return {static_cast<std::int64_t>(channel), static_cast<std::int64_t>(image * groups + group)};
}

/// A block owns one chunk of a set: sums of x - x0 and of its square, x0 the set's first element.
// budget: <=48 registers, 128 B shared, 256 threads, occupancy >= 0.6
template <class Index>
__global__ void __launch_bounds__(kBlock)
    norm_statistics_chunk_kernel(const float* x, NormShape shape, std::int64_t chunks, double* partial) {
  CINNABAR_SHARED(double, scratch, 2 * kBlock / 32);
  const std::int64_t set = blockIdx.x / chunks;
  const std::int64_t start = blockIdx.x % chunks * kChunk;
  const std::int64_t end = min(shape.set_size(), start + kChunk);
  const double shift = x[shape.element(set, 0)];
  double sums[2] = {};
  for (std::int64_t e = start + threadIdx.x; e < end; e += kBlock) {
    const double d = x[shape.element<Index>(set, e)] - shift;
    sums[0] += d;
    sums[1] += d * d;
  }
  block_sum<2, kBlock>(sums, scratch);
  if (threadIdx.x != 0) return;
  partial[2 * static_cast<std::int64_t>(blockIdx.x)] = sums[0];
  partial[2 * static_cast<std::int64_t>(blockIdx.x) + 1] = sums[1];
}

/// A block owns one chunk of `row_size` neighbouring elements and adds g and g z; the weight is null where
/// the sums of grad_y itself are wanted.
// budget: <=64 registers, 128 B shared, 256 threads, occupancy >= 0.5
template <class Index>
__global__ void __launch_bounds__(kBlock)
    norm_backward_sums_chunk_kernel(const float* grad_y, const float* x, const SetFactors* factors,
                                    const float* weight, NormShape shape, std::int64_t row_size,
                                    std::int64_t chunks, double* partial) {
  CINNABAR_SHARED(double, scratch, 2 * kBlock / 32);
  const std::int64_t first = blockIdx.x / chunks * row_size;
  const std::int64_t start = blockIdx.x % chunks * kChunk;
  const std::int64_t end = min(row_size, start + kChunk);
  const SetFactors f = factors[place_of<Index>(first, shape).set];
  double sums[2] = {};
  for (std::int64_t e = start + threadIdx.x; e < end; e += kBlock) {
    const std::int64_t i = first + e;
    double g = grad_y[i];
    if (weight != nullptr) g *= weight[place_of<Index>(i, shape).channel];
    sums[0] += g;
    sums[1] += g * (f.center(x[i]) * f.inverse);
  }
  block_sum<2, kBlock>(sums, scratch);
  if (threadIdx.x != 0) return;
  partial[2 * static_cast<std::int64_t>(blockIdx.x)] = sums[0];
  partial[2 * static_cast<std::int64_t>(blockIdx.x) + 1] = sums[1];
}

/// A thread owns one channel (x) of some images (y): sums of grad_y and grad_y z.
// budget: <=72 registers, 0 B shared, 256 threads, occupancy >= 0.75
__global__ void __launch_bounds__(kBlock)
    norm_backward_channel_sums_kernel(const float* grad_y, const float* x, const SetFactors* factors,
                                      NormShape shape, std::int64_t images_per_chunk, double* partial) {
  const std::int64_t channel = thread_index();
  if (channel >= shape.channels) return;
  const std::int64_t first = blockIdx.y * images_per_chunk;
  const std::int64_t last = min(shape.images, first + images_per_chunk);
  double sum = 0.0;
  double sum_z = 0.0;
  for (std::int64_t image = first; image < last; ++image) {
    const SetFactors f = factors[shape.set_of(image, channel)];
    const std::int64_t start = (image * shape.channels + channel) * shape.voxels;
    for (std::int64_t i = start; i < start + shape.voxels; ++i) {
      const double g = grad_y[i];
      sum += g;
      sum_z += g * (f.center(x[i]) * f.inverse);
    }
  }
  const std::int64_t at = 2 * (channel * gridDim.y + blockIdx.y);
  partial[at] = sum;
  partial[at + 1] = sum_z;
}

/// A thread owns one channel: its planes [images, channels, 2] in order.
// budget: <=48 registers, 0 B shared, 256 threads, occupancy >= 0.75
__global__ void norm_add_images_channel_kernel(const double* planes, NormShape shape, double* sums) {
  const std::int64_t channel = thread_index();
  if (channel >= shape.channels) return;
  double total[2] = {};
  for (std::int64_t image = 0; image < shape.images; ++image) {
    total[0] += planes[2 * (image * shape.channels + channel)];
    total[1] += planes[2 * (image * shape.channels + channel) + 1];
  }
  sums[2 * channel] = total[0];
  sums[2 * channel + 1] = total[1];
}

/// A thread owns one set: weighted sums of its channels, which are `channels_each` neighbours in [.., 2].
// budget: <=64 registers, 0 B shared, 256 threads, occupancy >= 0.75
__global__ void norm_add_channels_set_kernel(const double* channel_sums, const float* weight, NormShape shape,
                                             std::int64_t channels_each, double* sums) {
  const std::int64_t set = thread_index();
  if (set >= shape.sets()) return;
  double total[2] = {};
  for (std::int64_t c = set * channels_each; c < (set + 1) * channels_each; ++c) {
    const double factor = weight == nullptr ? 1.0 : static_cast<double>(weight[c % shape.channels]);
    total[0] += factor * channel_sums[2 * c];
    total[1] += factor * channel_sums[2 * c + 1];
  }
  sums[2 * set] = total[0];
  sums[2 * set + 1] = total[1];
}

bool fits_32_bit(const Tensor& x) {
  return x.numel() <= std::numeric_limits<std::int32_t>::max();
}

std::int64_t chunks_of(std::int64_t size) {
  return std::max<std::int64_t>(1, (size + kChunk - 1) / kChunk);
}

Tensor pairs(std::int64_t count, Device device) {
  return Tensor::empty({count, 2}, DType::f64, device);
}

/// A table of SetFactors is kept as bytes.
const SetFactors* entries(const Tensor& table) {
  return static_cast<const SetFactors*>(table.raw());
}

/// What the sums of the gradient read.
struct BackwardInputs {
  const Tensor& grad_y;
  const Tensor& x;
  const Tensor& factors;
  const NormShape& shape;
};

/// Sums of g and g z over rows of neighbouring elements, [rows, 2].
Tensor row_sums(const BackwardInputs& in, const float* weight, std::int64_t rows) {
  const Device device = in.x.device();
  const std::int64_t size = in.x.numel() / rows;
  const std::int64_t chunks = chunks_of(size);
  Tensor partial = pairs(rows * chunks, device);
  Tensor sums = pairs(rows, device);
  launch(kOp,
         fits_32_bit(in.x) ? norm_backward_sums_chunk_kernel<std::uint32_t>
                           : norm_backward_sums_chunk_kernel<std::uint64_t>,
         cover(rows * chunks * kBlock, kBlock), device, in.grad_y.data<float>(), in.x.data<float>(),
         entries(in.factors), weight, in.shape, size, chunks, partial.data<double>());
  sum_chunks<2>(kOp, partial, rows, chunks, sums.data<double>());
  return sums;
}

/// Sums of grad_y and grad_y z per channel, [channels, 2], for few voxels.
Tensor channel_sums_of_few_voxels(const BackwardInputs& in) {
  const NormShape& shape = in.shape;
  const std::int64_t wanted = (shape.images + kImageChunk - 1) / kImageChunk;
  const std::int64_t limit = std::min<std::int64_t>(wanted, 65535);
  const std::int64_t each = (shape.images + limit - 1) / limit;
  const std::int64_t chunks = (shape.images + each - 1) / each;
  Tensor partial = pairs(shape.channels * chunks, in.x.device());
  Tensor sums = pairs(shape.channels, in.x.device());
  LaunchShape launch_shape = cover(shape.channels, kBlock);
  launch_shape.grid.y = static_cast<unsigned>(chunks);
  launch(kOp, norm_backward_channel_sums_kernel, launch_shape, in.x.device(), in.grad_y.data<float>(),
         in.x.data<float>(), entries(in.factors), shape, each, partial.data<double>());
  sum_chunks<2>(kOp, partial, shape.channels, chunks, sums.data<double>());
  return sums;
}

/// `channels` [channels, 2] of grad_y and grad_y z, `sets` [sets, 2] of g and g z; undefined where not
/// needed.
struct BackwardSums {
  Tensor channels;
  Tensor sets;
};

BackwardSums backward_sums(const BackwardInputs& in, const float* weight, bool needs_channels,
                           bool needs_sets) {
  const NormShape& shape = in.shape;
  const Device device = in.x.device();
  const bool few = shape.voxels < kFewVoxels;
  BackwardSums sums;
  Tensor planes;
  if (!few && (needs_channels || needs_sets)) planes = row_sums(in, nullptr, shape.images * shape.channels);
  if (few && needs_channels) {
    sums.channels = channel_sums_of_few_voxels(in);
  } else if (needs_channels) {
    sums.channels = pairs(shape.channels, device);
    launch(kOp, norm_add_images_channel_kernel, cover(shape.channels, kBlock), device,
           std::as_const(planes).data<double>(), shape, sums.channels.data<double>());
  }
  if (!needs_sets) return sums;
  if (few && !shape.across_images) {
    sums.sets = row_sums(in, weight, shape.sets());
    return sums;
  }
  sums.sets = pairs(shape.sets(), device);
  const Tensor& from = shape.across_images ? sums.channels : planes;
  launch(kOp, norm_add_channels_set_kernel, cover(shape.sets(), kBlock), device, from.data<double>(), weight,
         shape, shape.across_images ? 1 : shape.channels / shape.groups, sums.sets.data<double>());
  return sums;
}

}  // namespace
}  // namespace cinnabar::cuda
