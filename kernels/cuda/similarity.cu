// Work split: a block of 256 threads takes 4096 voxels of one channel, 16 a thread; blockIdx.y walks the
// planes
//   (batch times channels). Sums: a thread adds its 16 terms in float (relative to the image's first voxel,
//   which keeps variances accurate), then in float64; block_sum adds the block in a fixed order, a second
//   kernel the blocks, one thread makes the loss. Nothing is read back by the host.
// Gradients: the same blocks, coefficients computed once per thread and plane in float64.
// Shared memory: 384 bytes at most. Launch: 256 threads, one block per 4096 voxels and plane.
// Limiting resource: memory, 8 bytes read per voxel in forward (12 with a weight), 4 more per gradient.

#include "kernels/similarity.hpp"

#include "kernels/cuda/block_sum.cuh"
#include "kernels/cuda/launch.cuh"

namespace cinnabar::cuda {
namespace {

constexpr int kBlock = 256;
constexpr int kPerThread = 16;
constexpr std::int64_t kChunk = std::int64_t{kBlock} * kPerThread;
constexpr const char* kOp = "similarity";

enum class Measure { ssd, ncc };

struct Images {
  const float* warped;
  const float* fixed;
  const float* weight;  // null: all 1
  SimilarityShape shape;
};

__device__ __forceinline__ float weight_at(const Images& images, std::int64_t plane, std::int64_t i) {
  if (images.weight == nullptr) return 1.0f;
  return images.weight[plane / images.shape.channels * images.shape.weight_batch_stride +
                       plane % images.shape.channels * images.shape.weight_channel_stride + i];
}

/// partial [N, C * chunks, Count].
// budget: <=64 registers, 384 B shared, 256 threads, occupancy >= 0.5
template <Measure kMeasure, int Count>
__global__ void __launch_bounds__(kBlock, 4) similarity_sums_chunk_kernel(Images images, double* partial) {
  CINNABAR_SHARED(double, scratch, Count* kBlock / 32);
  const std::int64_t voxels = images.shape.voxels;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kChunk + threadIdx.x;
  for (std::int64_t plane = blockIdx.y; plane < images.shape.batch * images.shape.channels;
       plane += gridDim.y) {
    const std::int64_t origin = plane / images.shape.channels * images.shape.channels * voxels;
    const float a0 = images.warped[origin];
    const float b0 = images.fixed[origin];
    float sums[Count] = {};
    for (int k = 0; k < kPerThread; ++k) {
      const std::int64_t i = first + k * kBlock;
      if (i >= voxels) break;
      const float w = weight_at(images, plane, i);
      const float a = images.warped[plane * voxels + i];
      const float b = images.fixed[plane * voxels + i];
      sums[0] += w;
      if constexpr (kMeasure == Measure::ssd) {
        sums[1] += w * (a - b) * (a - b);
      } else {
        const float da = a - a0;
        const float db = b - b0;
        sums[1] += w * da;
        sums[2] += w * db;
        sums[3] += w * da * da;
        sums[4] += w * db * db;
        sums[5] += w * da * db;
      }
    }
    double totals[Count];
#pragma unroll
    for (int k = 0; k < Count; ++k) totals[k] = static_cast<double>(sums[k]);
    block_sum<Count, kBlock>(totals, scratch);
    if (threadIdx.x == 0) {
#pragma unroll
      for (int k = 0; k < Count; ++k) partial[(plane * gridDim.x + blockIdx.x) * Count + k] = totals[k];
    }
    __syncthreads();
  }
}

__device__ __forceinline__ void ssd_totals(const double* sums, std::int64_t batch, double& weight,
                                           double& squares) {
  weight = 0.0;
  squares = 0.0;
  for (std::int64_t n = 0; n < batch; ++n) {
    weight += sums[n * kSsdSums];
    squares += sums[n * kSsdSums + 1];
  }
}

// budget: <=32 registers, 0 B shared, 1 threads, occupancy >= 0
__global__ void similarity_ssd_loss_kernel(const double* sums, std::int64_t batch, bool mean, float* loss) {
  double weight;
  double squares;
  ssd_totals(sums, batch, weight, squares);
  *loss = static_cast<float>(mean ? (weight != 0.0 ? squares / weight : 0.0) : squares);
}

// budget: <=40 registers, 0 B shared, 1 threads, occupancy >= 0
__global__ void similarity_ncc_loss_kernel(const double* sums, std::int64_t batch, float* loss) {
  double total = 0.0;
  for (std::int64_t n = 0; n < batch; ++n) total += correlation_of(sums + n * kNccSums).value;
  *loss = static_cast<float>(1.0 - total / static_cast<double>(batch));
}

/// The gradient of the correlation is w (cross (other - mean_other) + self (own - mean_own)), that of the
/// squared difference w cross (other - own).
struct LinearGradient {
  float mean_a, mean_b, cross, self_a, self_b;
};

__device__ __forceinline__ LinearGradient ssd_gradient(const double* sums, std::int64_t batch, bool mean,
                                                       float grad_loss) {
  double weight = 1.0;
  double squares;
  if (mean) ssd_totals(sums, batch, weight, squares);
  const auto factor =
      weight != 0.0 ? static_cast<float>(2.0 * static_cast<double>(grad_loss) / weight) : 0.0f;
  return {0.0f, 0.0f, -factor, 0.0f, 0.0f};
}

__device__ __forceinline__ LinearGradient ncc_gradient(const Images& images, const double* sums,
                                                       std::int64_t n, float grad_loss) {
  const Correlation r = correlation_of(sums + n * kNccSums);
  const double factor = -static_cast<double>(grad_loss) / static_cast<double>(images.shape.batch);
  const std::int64_t origin = n * images.shape.channels * images.shape.voxels;
  return {static_cast<float>(static_cast<double>(images.warped[origin]) + r.mean_a),
          static_cast<float>(static_cast<double>(images.fixed[origin]) + r.mean_b),
          static_cast<float>(factor * r.cross), static_cast<float>(factor * r.self_a),
          static_cast<float>(factor * r.self_b)};
}

/// Either gradient may be null.
// budget: <=56 registers, 0 B shared, 256 threads, occupancy >= 0.5
template <Measure kMeasure>
__global__ void __launch_bounds__(kBlock, 4)
    similarity_backward_chunk_kernel(Images images, const double* sums, const float* grad_loss, bool mean,
                                     float* grad_warped, float* grad_fixed) {
  const std::int64_t voxels = images.shape.voxels;
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kChunk + threadIdx.x;
  for (std::int64_t plane = blockIdx.y; plane < images.shape.batch * images.shape.channels;
       plane += gridDim.y) {
    LinearGradient g;
    if constexpr (kMeasure == Measure::ssd) {
      g = ssd_gradient(sums, images.shape.batch, mean, *grad_loss);
    } else {
      g = ncc_gradient(images, sums, plane / images.shape.channels, *grad_loss);
    }
    for (int k = 0; k < kPerThread; ++k) {
      const std::int64_t i = first + k * kBlock;
      if (i >= voxels) break;
      const float w = weight_at(images, plane, i);
      const std::int64_t at = plane * voxels + i;
      const float a = images.warped[at];
      const float b = images.fixed[at];
      if constexpr (kMeasure == Measure::ssd) {
        if (grad_warped != nullptr) grad_warped[at] = g.cross * w * (b - a);
        if (grad_fixed != nullptr) grad_fixed[at] = g.cross * w * (a - b);
      } else {
        const float da = a - g.mean_a;
        const float db = b - g.mean_b;
        if (grad_warped != nullptr) grad_warped[at] = w * (g.cross * db + g.self_a * da);
        if (grad_fixed != nullptr) grad_fixed[at] = w * (g.cross * da + g.self_b * db);
      }
    }
  }
}

LaunchShape shape_of_launch(const SimilarityShape& shape) {
  LaunchShape launch_shape = cover_rows(shape.voxels, shape.batch * shape.channels, static_cast<int>(kChunk));
  launch_shape.block = dim3(kBlock);
  return launch_shape;
}

Images images_of(const Tensor& warped, const Tensor& fixed, const Tensor& weight,
                 const SimilarityShape& shape) {
  require_dtype(kOp, warped, DType::f32);
  return {warped.data<float>(), fixed.data<float>(), weight.defined() ? weight.data<float>() : nullptr,
          shape};
}

template <Measure kMeasure, int Count>
void accumulate(const Images& images, Tensor& sums) {
  const LaunchShape shape = shape_of_launch(images.shape);
  const std::int64_t chunks = images.shape.channels * shape.grid.x;
  Tensor partial = Tensor::empty({images.shape.batch, chunks, Count}, DType::f64, sums.device());
  launch(kOp, similarity_sums_chunk_kernel<kMeasure, Count>, shape, sums.device(), images,
         partial.data<double>());
  sum_chunks<Count>(kOp, partial, images.shape.batch, chunks, sums.data<double>());
}

template <Measure kMeasure>
void gradients(const Images& images, const Tensor& sums, const Tensor& grad_loss, bool mean,
               Tensor& grad_warped, Tensor& grad_fixed) {
  launch(kOp, similarity_backward_chunk_kernel<kMeasure>, shape_of_launch(images.shape), sums.device(),
         images, sums.data<double>(), grad_loss.data<float>(), mean,
         grad_warped.defined() ? grad_warped.data<float>() : nullptr,
         grad_fixed.defined() ? grad_fixed.data<float>() : nullptr);
}

const LaunchShape kOneThread{dim3(1), dim3(1)};

void ssd(const Tensor& warped, const Tensor& fixed, const Tensor& weight, bool mean, Tensor& sums,
         Tensor& loss) {
  const SimilarityShape shape = similarity_shape(warped, fixed, weight, sums, kSsdSums, loss);
  accumulate<Measure::ssd, kSsdSums>(images_of(warped, fixed, weight, shape), sums);
  launch(kOp, similarity_ssd_loss_kernel, kOneThread, sums.device(), sums.data<double>(), shape.batch, mean,
         loss.data<float>());
}

void ssd_backward(const Tensor& grad_loss, const Tensor& warped, const Tensor& fixed, const Tensor& weight,
                  bool mean, const Tensor& sums, Tensor& grad_warped, Tensor& grad_fixed) {
  const SimilarityShape shape = similarity_shape(warped, fixed, weight, sums, kSsdSums, grad_loss);
  check_similarity_gradients(warped, grad_warped, grad_fixed);
  gradients<Measure::ssd>(images_of(warped, fixed, weight, shape), sums, grad_loss, mean, grad_warped,
                          grad_fixed);
}

void ncc(const Tensor& warped, const Tensor& fixed, const Tensor& weight, Tensor& sums, Tensor& loss) {
  const SimilarityShape shape = similarity_shape(warped, fixed, weight, sums, kNccSums, loss);
  accumulate<Measure::ncc, kNccSums>(images_of(warped, fixed, weight, shape), sums);
  launch(kOp, similarity_ncc_loss_kernel, kOneThread, sums.device(), sums.data<double>(), shape.batch,
         loss.data<float>());
}

void ncc_backward(const Tensor& grad_loss, const Tensor& warped, const Tensor& fixed, const Tensor& weight,
                  const Tensor& sums, Tensor& grad_warped, Tensor& grad_fixed) {
  const SimilarityShape shape = similarity_shape(warped, fixed, weight, sums, kNccSums, grad_loss);
  check_similarity_gradients(warped, grad_warped, grad_fixed);
  gradients<Measure::ncc>(images_of(warped, fixed, weight, shape), sums, grad_loss, false, grad_warped,
                          grad_fixed);
}

}  // namespace

extern const Similarity similarity;
const Similarity similarity{ssd, ssd_backward, ncc, ncc_backward};

}  // namespace cinnabar::cuda
