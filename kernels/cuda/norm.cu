// Batch, instance, group and layer norm.
// Work split: sums over a set (or a channel of an image) are cut into chunks of 8192 elements, one block a
// chunk; block_sum adds a block in a fixed order, sum_chunks the chunks. With fewer than 32 voxels a channel,
// the sums over images belong to one thread a channel instead, neighbours reading neighbouring channels.
// Small kernels with one thread a set or channel turn sums into the five numbers that the pointwise kernels
// (one thread an element) read. Sums are added in float64: two additions an element, hidden behind the loads
// where float64 runs at half the float32 rate, not where it runs at 1/64.
// Shared memory: 128 bytes for block_sum. Launch: 256 threads. Limiting resource: memory bandwidth
// (statistics 4 bytes an element, forward 8, backward 8 for the sums and 12 for grad_x).
#include "kernels/norm.hpp"

#include "kernels/cuda/norm_sums.cuh"

namespace cinnabar::cuda {

namespace {

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
                                                   float* running_variance, std::int64_t* batches) {
  const std::int64_t c = thread_index();
  if (c == 0 && batches != nullptr) ++*batches;
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

void statistics(const Tensor& x, const NormShape& shape, Tensor& mean, Tensor& variance) {
  check_norm_statistics(x, shape, mean, variance);
  require_dtype(kOp, x, DType::f32);
  if (x.numel() == 0) return;
  const Device device = x.device();
  const std::int64_t chunks = chunks_of(shape.set_size());
  Tensor partial = pairs(shape.sets() * chunks, device);
  Tensor sums = pairs(shape.sets(), device);
  launch(kOp,
         fits_32_bit(x) ? norm_statistics_chunk_kernel<std::uint32_t>
                        : norm_statistics_chunk_kernel<std::uint64_t>,
         cover(shape.sets() * chunks * kBlock, kBlock), device, x.data<float>(), shape, chunks,
         partial.data<double>());
  sum_chunks<2>(kOp, partial, shape.sets(), chunks, sums.data<double>());
  launch(kOp, norm_statistics_set_kernel, cover(shape.sets(), kBlock), device, x.data<float>(),
         std::as_const(sums).data<double>(), shape, mean.data<double>(), variance.data<double>());
}

void update_running(const Tensor& mean, const Tensor& variance, double momentum, const NormShape& shape,
                    Tensor& running_mean, Tensor& running_variance, Tensor& batches) {
  check_norm_update(mean, variance, momentum, shape, running_mean, running_variance, batches);
  require_dtype(kOp, running_mean, DType::f32);
  launch(kOp, norm_update_running_channel_kernel, cover(shape.channels, kBlock), running_mean.device(),
         mean.data<double>(), variance.data<double>(), momentum, shape, running_mean.data<float>(),
         running_variance.data<float>(), batches.defined() ? batches.data<std::int64_t>() : nullptr);
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
  const bool needs_sets = grad_x.defined() && !constant_statistics;
  const BackwardSums sums =
      backward_sums({grad_y, x, factors, shape}, or_null(weight),
                    grad_weight.defined() || (needs_sets && shape.across_images), needs_sets);
  if (grad_weight.defined()) {
    launch(kOp, norm_parameter_gradients_channel_kernel, cover(shape.channels, kBlock), device,
           sums.channels.data<double>(), shape.channels, grad_weight.data<float>(), grad_bias.data<float>());
  }
  if (!grad_x.defined()) return;
  if (needs_sets) factors = factors_of(mean, variance, sums.sets, epsilon, shape);
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
