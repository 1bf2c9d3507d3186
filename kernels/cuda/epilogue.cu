// Bias, activation and dropout in one pass, and their gradients in one pass.
// Work split: forward gives a thread four consecutive elements; backward gives a block 4096 positions of one
//   channel, all images in a row, four consecutive ones a thread at a time.
// Sums of backward: 16 terms a thread in float, then float64: block_sum adds the block in a fixed order, a
//   second kernel the blocks of a channel, a third writes the gradients.
// Shared memory: 128 bytes. Launch: 256 threads. Limiting resource: memory (8 bytes an element forward, 12
// backward); with dropout also the integer work of a Philox counter for at most four elements.

#include "kernels/epilogue.hpp"

#include "kernels/cuda/block_sum.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/epilogue_math.hpp"

namespace cinnabar::cuda {
namespace {

constexpr const char* kOp = "epilogue";
constexpr int kBlock = 256;
constexpr int kEach = 4;    // consecutive elements of a thread
constexpr int kRounds = 4;  // of backward
constexpr std::int64_t kChunk = std::int64_t{kBlock} * kEach * kRounds;

// budget: <=48 registers, 0 B shared, 256 threads, occupancy >= 0.62
__global__ void __launch_bounds__(kBlock)
    epilogue_forward_element_kernel(const float* x, EpilogueMath<float> math, EpilogueShape shape, float* y) {
  const std::int64_t first = kEach * thread_index();
  const std::int64_t count = shape.batch * shape.channels * shape.inner;
  if (first >= count) return;
  std::int64_t row = first / shape.inner;
  std::int64_t left = (row + 1) * shape.inner - first;  // elements before the next row
  std::int64_t channel = row % shape.channels;
  UniformCursor uniform;
#pragma unroll
  for (int k = 0; k < kEach; ++k) {
    const std::int64_t i = first + k;
    if (i >= count) break;
    if (left-- == 0) {
      left = shape.inner - 1;
      if (++channel == shape.channels) channel = 0;
    }
    y[i] = epilogue_value(math, channel, i, x[i], uniform);
  }
}

/// partial [channels, chunks, 2]: sums of the gradients of z, and of those of the weight.
// budget: <=56 registers, 128 B shared, 256 threads, occupancy >= 0.5
__global__ void __launch_bounds__(kBlock)
    epilogue_backward_chunk_kernel(const float* grad_y, const float* saved, EpilogueMath<float> math,
                                   EpilogueShape shape, float* grad_x, double* partial) {
  CINNABAR_SHARED(double, scratch, 2 * kBlock / 32);
  const std::int64_t positions = shape.batch * shape.inner;
  for (std::int64_t channel = blockIdx.y; channel < shape.channels; channel += gridDim.y) {
    const float slope = math.slope_of(channel);
    float bias = 0.0f;
    float weight = 0.0f;
    for (int round = 0; round < kRounds; ++round) {
      const std::int64_t first =
          std::int64_t{blockIdx.x} * kChunk + (round * kBlock + static_cast<int>(threadIdx.x)) * kEach;
      if (first >= positions) break;
      std::int64_t image = first / shape.inner;
      std::int64_t voxel = first - image * shape.inner;
      UniformCursor uniform;
#pragma unroll
      for (int k = 0; k < kEach; ++k) {
        if (first + k >= positions) break;
        const std::int64_t i = (image * shape.channels + channel) * shape.inner + voxel;
        if (++voxel == shape.inner) {
          voxel = 0;
          ++image;
        }
        float grad = grad_y[i];
        if (math.drops) grad = math.mask.apply(uniform.at(math.sequence, i), grad);
        const float z = saved == nullptr ? 0.0f : saved[i];
        const float value = activation_gradient(math.activation, grad, z, slope);
        if (!(z > 0.0f)) weight += grad * z;
        bias += value;
        grad_x[i] = value;
      }
    }
    double totals[2] = {static_cast<double>(bias), static_cast<double>(weight)};
    block_sum<2, kBlock>(totals, scratch);
    if (threadIdx.x == 0) {
      partial[(channel * gridDim.x + blockIdx.x) * 2] = totals[0];
      partial[(channel * gridDim.x + blockIdx.x) * 2 + 1] = totals[1];
    }
    __syncthreads();
  }
}

/// A thread writes the gradients of one channel; thread 0 adds those of a weight that all channels share.
/// Either gradient may be null.
// budget: <=32 registers, 0 B shared, 256 threads, occupancy >= 1.0
__global__ void epilogue_gradients_channel_kernel(const double* sums, std::int64_t channels, bool shared,
                                                  float* grad_bias, float* grad_weight) {
  const std::int64_t channel = thread_index();
  if (channel >= channels) return;
  if (grad_bias != nullptr) grad_bias[channel] = static_cast<float>(sums[2 * channel]);
  if (grad_weight == nullptr) return;
  if (!shared) grad_weight[channel] = static_cast<float>(sums[2 * channel + 1]);
  if (!shared || channel > 0) return;
  double all = 0.0;
  for (std::int64_t c = 0; c < channels; ++c) all += sums[2 * c + 1];
  *grad_weight = static_cast<float>(all);
}

void forward(const Tensor& x, const Epilogue& epilogue, Tensor& y) {
  const EpilogueShape shape = epilogue_shape(x, epilogue, y);
  require_dtype(kOp, y, DType::f32);
  if (y.numel() == 0) return;
  launch(kOp, epilogue_forward_element_kernel, cover((y.numel() + kEach - 1) / kEach, kBlock), y.device(),
         x.data<float>(), epilogue_math<float>(epilogue), shape, y.data<float>());
}

void backward(const Tensor& grad_y, const Tensor& saved, const Epilogue& epilogue, Tensor& grad_x,
              Tensor& grad_bias, Tensor& grad_weight) {
  const EpilogueShape shape =
      epilogue_backward_shape(grad_y, saved, epilogue, grad_x, grad_bias, grad_weight);
  require_dtype(kOp, grad_y, DType::f32);
  if (shape.channels == 0) return;
  LaunchShape launched = cover_rows(shape.batch * shape.inner, shape.channels, static_cast<int>(kChunk));
  launched.block = dim3(kBlock);
  Tensor partial = Tensor::empty({shape.channels, launched.grid.x, 2}, DType::f64, grad_y.device());
  Tensor sums = Tensor::empty({shape.channels, 2}, DType::f64, grad_y.device());
  launch(kOp, epilogue_backward_chunk_kernel, launched, grad_y.device(), grad_y.data<float>(),
         epilogue.activation == Activation::none ? nullptr : saved.data<float>(),
         epilogue_math<float>(epilogue), shape, grad_x.data<float>(), partial.data<double>());
  if (!grad_bias.defined() && !grad_weight.defined()) return;
  sum_chunks<2>(kOp, partial, shape.channels, launched.grid.x, sums.data<double>());
  launch(kOp, epilogue_gradients_channel_kernel, cover(shape.channels, kBlock), grad_y.device(),
         sums.data<double>(), shape.channels, epilogue.weight.defined() && epilogue.weight.numel() == 1,
         grad_bias.defined() ? grad_bias.data<float>() : nullptr,
         grad_weight.defined() ? grad_weight.data<float>() : nullptr);
}

}  // namespace

extern const EpilogueKernels epilogue;
const EpilogueKernels epilogue{forward, backward};

}  // namespace cinnabar::cuda
