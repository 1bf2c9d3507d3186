// Batch, instance, group and layer norm.
// Work split: sums over a set (or a channel of an image) are cut into chunks of 8192 elements, one block a
// chunk; block_sum adds a block in a fixed order, sum_chunks the chunks. With fewer than 32 voxels a channel,
// the sums over images belong to one thread a channel instead, neighbours reading neighbouring channels.
// Small kernels with one thread a set or channel turn sums into the five numbers that the pointwise kernels
// (one thread an element) read. Sums are added in float64: two additions an element, hidden behind the loads
// where float64 runs at half the float32 rate, not where it runs at 1/64.
// Shared memory: 128 bytes for block_sum. Launch: 256 threads. Limiting resource: memory bandwidth
// (statistics 4 bytes an element, forward 8, backward 8 for the sums and 12 for grad_x). Compiled and
// emulated only, not yet run on a GPU.
#include "kernels/norm.hpp"

#include <algorithm>
#include <utility>

#include "kernels/cuda/block_sum.cuh"
#include "kernels/cuda/launch.cuh"

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

/// A block owns one chunk of a set: sums of x - x0 and of its square, x0 the set's first element.
// budget: <=48 registers, 128 B shared, 256 threads, occupancy >= 0.6
__global__ void __launch_bounds__(kBlock)
    norm_statistics_chunk_kernel(const float* x, NormShape shape, std::int64_t chunks, double* partial) {
  CINNABAR_SHARED(double, scratch, 2 * kBlock / 32);
  const std::int64_t set = blockIdx.x / chunks;
  const std::int64_t start = blockIdx.x % chunks * kChunk;
  const std::int64_t end = min(shape.set_size(), start + kChunk);
  const double shift = x[shape.element(set, 0)];
  double sums[2] = {};
  for (std::int64_t e = start + threadIdx.x; e < end; e += kBlock) {
    const double d = x[shape.element(set, e)] - shift;
    sums[0] += d;
    sums[1] += d * d;
  }
  block_sum<2, kBlock>(sums, scratch);
  if (threadIdx.x != 0) return;
  partial[2 * static_cast<std::int64_t>(blockIdx.x)] = sums[0];
  partial[2 * static_cast<std::int64_t>(blockIdx.x) + 1] = sums[1];
}

/// A thread owns one set.
// budget: <=40 registers, 0 B shared, 256 threads, occupancy >= 0.75
__global__ void norm_statistics_set_kernel(const float* x, const double* sums, NormShape shape, double* mean,
                                           double* variance) {
  const std::int64_t set = thread_index();
  if (set >= shape.sets()) return;
  const auto size = static_cast<double>(shape.set_size());
  const double shifted = sums[2 * set] / size;
  const double spread = sums[2 * set + 1] / size - shifted * shifted;
  mean[set] = x[shape.element(set, 0)] + shifted;
  variance[set] = spread > 0.0 ? spread : 0.0;
}

/// A thread owns one channel.
// budget: <=40 registers, 0 B shared, 256 threads, occupancy >= 0.75
__global__ void norm_update_running_channel_kernel(const double* mean, const double* variance,
                                                   double momentum, NormShape shape, float* running_mean,
                                                   float* running_variance) {
  const std::int64_t c = thread_index();
  if (c >= shape.channels) return;
  const auto size = static_cast<double>(shape.set_size());
  running_mean[c] = norm_running_value(running_mean[c], mean[c], momentum, 1.0);
  running_variance[c] = norm_running_value(running_variance[c], variance[c], momentum, size / (size - 1.0));
}

/// A thread owns one set. `sums` of g and g z, null where both count as 0.
// budget: <=40 registers, 0 B shared, 256 threads, occupancy >= 0.75
template <class Statistic>
__global__ void norm_factors_set_kernel(const Statistic* mean, const Statistic* variance, const double* sums,
                                        double epsilon, NormShape shape, SetFactors* factors) {
  const std::int64_t set = thread_index();
  if (set >= shape.sets()) return;
  const auto size = static_cast<double>(shape.set_size());
  SetFactors result;
  result.center = NormCenter<float>(static_cast<double>(mean[set]));
  result.inverse = static_cast<float>(1.0 / sqrt(static_cast<double>(variance[set]) + epsilon));
  result.mean_g = sums == nullptr ? 0.0f : static_cast<float>(sums[2 * set] / size);
  result.mean_gz = sums == nullptr ? 0.0f : static_cast<float>(sums[2 * set + 1] / size);
  factors[set] = result;
}

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

/// A thread owns one element.
// budget: <=40 registers, 0 B shared, 256 threads, occupancy >= 0.75
template <class Index>
__global__ void __launch_bounds__(kBlock)
    norm_forward_element_kernel(const float* x, const SetFactors* factors, const float* weight,
                                const float* bias, NormShape shape, std::int64_t count, float* y) {
  const std::int64_t i = thread_index();
  if (i >= count) return;
  const Place place = place_of<Index>(i, shape);
  const SetFactors f = factors[place.set];
  const float scale = weight == nullptr ? f.inverse : f.inverse * weight[place.channel];
  y[i] = f.center(x[i]) * scale + (bias == nullptr ? 0.0f : bias[place.channel]);
}

/// A thread owns one element.
// budget: <=40 registers, 0 B shared, 256 threads, occupancy >= 0.75
template <class Index>
__global__ void __launch_bounds__(kBlock)
    norm_backward_element_kernel(const float* grad_y, const float* x, const SetFactors* factors,
                                 const float* weight, NormShape shape, std::int64_t count, float* grad_x) {
  const std::int64_t i = thread_index();
  if (i >= count) return;
  const Place place = place_of<Index>(i, shape);
  const SetFactors f = factors[place.set];
  const float g = weight == nullptr ? grad_y[i] : grad_y[i] * weight[place.channel];
  grad_x[i] = (g - f.mean_g - f.center(x[i]) * f.inverse * f.mean_gz) * f.inverse;
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

/// A thread owns one channel.
// budget: <=32 registers, 0 B shared, 256 threads, occupancy >= 1.0
__global__ void norm_parameter_gradients_channel_kernel(const double* sums, std::int64_t channels,
                                                        float* grad_weight, float* grad_bias) {
  const std::int64_t channel = thread_index();
  if (channel >= channels) return;
  grad_bias[channel] = static_cast<float>(sums[2 * channel]);
  grad_weight[channel] = static_cast<float>(sums[2 * channel + 1]);
}

const float* or_null(const Tensor& tensor) {
  return tensor.defined() ? tensor.data<float>() : nullptr;
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

void statistics(const Tensor& x, const NormShape& shape, Tensor& mean, Tensor& variance) {
  check_norm_statistics(x, shape, mean, variance);
  require_dtype(kOp, x, DType::f32);
  if (x.numel() == 0) return;
  const Device device = x.device();
  const std::int64_t chunks = chunks_of(shape.set_size());
  Tensor partial = pairs(shape.sets() * chunks, device);
  Tensor sums = pairs(shape.sets(), device);
  launch(kOp, norm_statistics_chunk_kernel, cover(shape.sets() * chunks * kBlock, kBlock), device,
         x.data<float>(), shape, chunks, partial.data<double>());
  sum_chunks<2>(kOp, partial, shape.sets(), chunks, sums.data<double>());
  launch(kOp, norm_statistics_set_kernel, cover(shape.sets(), kBlock), device, x.data<float>(),
         std::as_const(sums).data<double>(), shape, mean.data<double>(), variance.data<double>());
}

void update_running(const Tensor& mean, const Tensor& variance, double momentum, const NormShape& shape,
                    Tensor& running_mean, Tensor& running_variance) {
  check_norm_update(mean, variance, momentum, shape, running_mean, running_variance);
  require_dtype(kOp, running_mean, DType::f32);
  launch(kOp, norm_update_running_channel_kernel, cover(shape.channels, kBlock), running_mean.device(),
         mean.data<double>(), variance.data<double>(), momentum, shape, running_mean.data<float>(),
         running_variance.data<float>());
}

/// [sets] of SetFactors; sums may be undefined.
Tensor factors_of(const Tensor& mean, const Tensor& variance, const Tensor& sums, double epsilon,
                  const NormShape& shape) {
  const auto bytes = static_cast<std::int64_t>(sizeof(SetFactors));
  Tensor table = Tensor::empty({shape.sets() * bytes}, DType::u8, mean.device());
  const double* const added = sums.defined() ? sums.data<double>() : nullptr;
  dispatch_floating(kOp, mean.dtype(), [&](auto element) {
    using T = decltype(element);
    launch(kOp, norm_factors_set_kernel<T>, cover(shape.sets(), kBlock), mean.device(), mean.data<T>(),
           variance.data<T>(), added, epsilon, shape, static_cast<SetFactors*>(table.raw()));
  });
  return table;
}

const SetFactors* entries(const Tensor& table) {
  return static_cast<const SetFactors*>(table.raw());
}

void forward(const Tensor& x, const Tensor& mean, const Tensor& variance, const Tensor& weight,
             const Tensor& bias, double epsilon, const NormShape& shape, Tensor& y) {
  check_norm_forward(x, mean, variance, weight, bias, epsilon, shape, y);
  require_dtype(kOp, x, DType::f32);
  if (x.numel() == 0) return;
  const Tensor factors = factors_of(mean, variance, {}, epsilon, shape);
  launch(kOp,
         fits_32_bit(x) ? norm_forward_element_kernel<std::uint32_t>
                        : norm_forward_element_kernel<std::uint64_t>,
         cover(x.numel(), kBlock), x.device(), x.data<float>(), entries(factors), or_null(weight),
         or_null(bias), shape, x.numel(), y.data<float>());
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

void backward(const Tensor& grad_y, const Tensor& x, const Tensor& mean, const Tensor& variance,
              const Tensor& weight, double epsilon, bool constant_statistics, const NormShape& shape,
              Tensor& grad_x, Tensor& grad_weight, Tensor& grad_bias) {
  check_norm_backward(grad_y, x, mean, variance, weight, epsilon, shape, grad_x, grad_weight, grad_bias);
  require_dtype(kOp, x, DType::f32);
  const Device device = x.device();
  if (x.numel() == 0) {
    if (grad_weight.defined()) {
      grad_weight.fill(0.0);
      grad_bias.fill(0.0);
    }
    return;
  }
  Tensor factors = factors_of(mean, variance, {}, epsilon, shape);
  const BackwardInputs in{grad_y, x, factors, shape};
  const bool few = shape.voxels < kFewVoxels;
  const bool needs_sets = grad_x.defined() && !constant_statistics;
  const bool needs_channels = grad_weight.defined() || (needs_sets && shape.across_images);
  Tensor planes;
  if (!few && (needs_channels || needs_sets)) planes = row_sums(in, nullptr, shape.images * shape.channels);
  Tensor channels;
  if (needs_channels && few) {
    channels = channel_sums_of_few_voxels(in);
  } else if (needs_channels) {
    channels = pairs(shape.channels, device);
    launch(kOp, norm_add_images_channel_kernel, cover(shape.channels, kBlock), device,
           std::as_const(planes).data<double>(), shape, channels.data<double>());
  }
  if (grad_weight.defined()) {
    launch(kOp, norm_parameter_gradients_channel_kernel, cover(shape.channels, kBlock), device,
           std::as_const(channels).data<double>(), shape.channels, grad_weight.data<float>(),
           grad_bias.data<float>());
  }
  if (!grad_x.defined()) return;
  if (needs_sets) {
    Tensor sets;
    if (few && !shape.across_images) {
      sets = row_sums(in, or_null(weight), shape.sets());
    } else {
      sets = pairs(shape.sets(), device);
      const Tensor& from = shape.across_images ? channels : planes;
      launch(kOp, norm_add_channels_set_kernel, cover(shape.sets(), kBlock), device, from.data<double>(),
             or_null(weight), shape, shape.across_images ? 1 : shape.channels / shape.groups,
             sets.data<double>());
    }
    factors = factors_of(mean, variance, sets, epsilon, shape);
  }
  launch(kOp,
         fits_32_bit(x) ? norm_backward_element_kernel<std::uint32_t>
                        : norm_backward_element_kernel<std::uint64_t>,
         cover(x.numel(), kBlock), device, grad_y.data<float>(), x.data<float>(), entries(factors),
         or_null(weight), shape, x.numel(), grad_x.data<float>());
}

}  // namespace

extern const Norm norm;
const Norm norm{statistics, update_running, forward, backward};

}  // namespace cinnabar::cuda
