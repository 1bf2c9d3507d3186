// Squared differences of neighbouring voxels.
// Work split: blocks of 32 x 8 voxels of a slice; in the forward pass a block walks about eight slices before
// it adds its threads' sums, a second kernel adds the blocks in a fixed order. The backward pass gathers six
// neighbours. Shared memory: 64 bytes for block_sum. Launch: 256 threads. Limiting resource: memory bandwidth
// (4 bytes a voxel forward, 8 backward); neighbours come from L1 and, along z, L2.
#include "kernels/gradient_penalty.hpp"

#include "kernels/cuda/block_sum.cuh"
#include "kernels/cuda/field_volume.cuh"

namespace cinnabar::cuda {

namespace {

constexpr const char* kOp = "gradient_penalty";
constexpr unsigned kSlices = 8;  // that a block of the forward pass walks over

/// A block owns 32 x 8 voxels of every gridDim.z-th slice.
// budget: <=48 registers, 64 B shared, 256 threads, occupancy >= 0.75
__global__ void __launch_bounds__(kTileThreads)
    gradient_penalty_forward_tile_kernel(const float* field, Volume volume, PenaltyWeights<float> weights,
                                         double scale, double* partial) {
  CINNABAR_SHARED(double, scratch, kTileThreads / 32);
  double sum[1] = {};
  for_each_slice(volume, [&](const Stencil<float>& near, const VoxelIndex& at) {
    sum[0] += weights.squares(near, field + at.n * volume.voxels + at.offset);
  });
  const int thread = static_cast<int>(threadIdx.y) * kTileX + static_cast<int>(threadIdx.x);
  block_sum<1, kTileThreads>(sum, scratch, thread);
  if (thread != 0) return;
  const std::int64_t block =
      (static_cast<std::int64_t>(blockIdx.z) * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  partial[block] = scale * sum[0];
}

/// A thread owns one voxel of every gridDim.z-th slice.
// budget: <=48 registers, 0 B shared, 256 threads, occupancy >= 0.75
__global__ void __launch_bounds__(kTileThreads)
    gradient_penalty_backward_voxel_kernel(const float* grad_loss, const float* field, Volume volume,
                                           PenaltyWeights<float> weights, double scale, float* grad_field) {
  const float factor = static_cast<float>(2.0 * scale * *grad_loss);
  for_each_slice(volume, [&](const Stencil<float>& near, const VoxelIndex& at) {
    const std::int64_t here = at.n * volume.voxels + at.offset;
    grad_field[here] = factor * weights.slope(near, field + here);
  });
}

void forward(const Tensor& field, const VoxelSpacing& spacing, Tensor& loss) {
  const PenaltyCall call = penalty_call(field, spacing, loss);
  const Volume volume = volume_of(kOp, call.shape, field.dtype());
  LaunchShape shape = cover_volume(volume);
  shape.grid.z = (shape.grid.z + kSlices - 1) / kSlices;
  const std::int64_t blocks = std::int64_t{1} * shape.grid.x * shape.grid.y * shape.grid.z;
  Tensor partial = Tensor::empty({blocks}, DType::f64, field.device());
  launch(kOp, gradient_penalty_forward_tile_kernel, shape, field.device(), field.data<float>(), volume,
         PenaltyWeights<float>(call), call.scale, partial.data<double>());
  sum_chunks<1>(kOp, partial, 1, blocks, loss.data<float>());
}

void backward(const Tensor& grad_loss, const Tensor& field, const VoxelSpacing& spacing, Tensor& grad_field) {
  const PenaltyCall call = penalty_call(field, spacing, grad_loss);
  require_field_like(kOp, "gradient", grad_field, field, field.shape(1));
  const Volume volume = volume_of(kOp, call.shape, field.dtype());
  launch(kOp, gradient_penalty_backward_voxel_kernel, cover_volume(volume), field.device(),
         grad_loss.data<float>(), field.data<float>(), volume, PenaltyWeights<float>(call), call.scale,
         grad_field.data<float>());
}

}  // namespace

extern const GradientPenalty gradient_penalty;
const GradientPenalty gradient_penalty{forward, backward};

}  // namespace cinnabar::cuda
