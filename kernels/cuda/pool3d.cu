// Maximum and average pooling.
// Work split: forward, one thread per output voxel reads its window; backward, one thread per input voxel
// gathers from the windows that cover it (one for kernel = stride, eight for kernel 3 and stride 2), so
// nothing is added atomically and the order is fixed. blockIdx.y walks batch times channels. Shared memory:
// none; neighbouring windows meet in L1. Launch: 256 threads. Limiting resource: memory (with kernel = stride
// = 2: 4 bytes read an input voxel, and 8 written an output voxel for the maximum).
#include "kernels/pool3d.hpp"

#include "kernels/cuda/launch.cuh"

namespace cinnabar::cuda {

namespace {

constexpr int kBlock = 256;
constexpr const char* kOp = "pool3d";

struct Voxel {
  std::int32_t d, h, w;
};

__device__ __forceinline__ Voxel voxel_at(std::int64_t index, std::int32_t height, std::int32_t width) {
  const auto i = static_cast<unsigned>(index);
  const auto rows = i / static_cast<unsigned>(width);
  const auto d = rows / static_cast<unsigned>(height);
  return {static_cast<std::int32_t>(d), static_cast<std::int32_t>(rows - d * static_cast<unsigned>(height)),
          static_cast<std::int32_t>(i - rows * static_cast<unsigned>(width))};
}

/// One range on each axis.
struct Box {
  PoolRange d, h, w;
};

/// What of an output voxel's window lies inside the image.
__device__ __forceinline__ Box window_of(const PoolShape& shape, const Voxel& at) {
  return {shape.axis[0].inside(at.d), shape.axis[1].inside(at.h), shape.axis[2].inside(at.w)};
}

/// The output voxels whose windows could reach an input voxel.
__device__ __forceinline__ Box windows_over(const PoolShape& shape, const Voxel& at) {
  return {shape.axis[0].windows_over(at.d), shape.axis[1].windows_over(at.h),
          shape.axis[2].windows_over(at.w)};
}

/// A thread owns one output voxel.
// budget: <=48 registers, 0 B shared, 256 threads, occupancy >= 0.6
__global__ void __launch_bounds__(kBlock)
    pool3d_max_forward_voxel_kernel(const float* input, PoolShape shape, float* output,
                                    std::int32_t* indices) {
  const std::int64_t i = thread_index();
  if (i >= shape.out_volume) return;
  const auto [d, h, w] = window_of(shape, voxel_at(i, shape.axis[1].out, shape.axis[2].out));
  for (std::int64_t image = blockIdx.y; image < shape.images; image += gridDim.y) {
    const float* volume = input + image * shape.in_volume;
    float best = -std::numeric_limits<float>::infinity();
    const bool empty = d.first >= d.end || h.first >= h.end || w.first >= w.end;
    std::int32_t index = empty ? -1 : (d.first * shape.axis[1].in + h.first) * shape.axis[2].in + w.first;
    for (std::int32_t z = d.first; z < d.end; z += shape.axis[0].dilation) {
      for (std::int32_t y = h.first; y < h.end; y += shape.axis[1].dilation) {
        const std::int32_t row = (z * shape.axis[1].in + y) * shape.axis[2].in;
        for (std::int32_t x = w.first; x < w.end; x += shape.axis[2].dilation) {
          const float value = volume[row + x];
          if (value > best || value != value) {
            best = value;
            index = row + x;
          }
        }
      }
    }
    output[image * shape.out_volume + i] = best;
    indices[image * shape.out_volume + i] = index;
  }
}

/// A thread owns one input voxel and adds the gradients of the windows that it won.
// budget: <=64 registers, 0 B shared, 256 threads, occupancy >= 0.75
__global__ void __launch_bounds__(kBlock)
    pool3d_max_backward_voxel_kernel(const float* grad_output, const std::int32_t* indices, PoolShape shape,
                                     float* grad_input) {
  const std::int64_t i = thread_index();
  if (i >= shape.in_volume) return;
  const auto [d, h, w] = windows_over(shape, voxel_at(i, shape.axis[1].in, shape.axis[2].in));
  for (std::int64_t image = blockIdx.y; image < shape.images; image += gridDim.y) {
    float sum = 0.0f;
    for (std::int32_t z = d.first; z < d.end; ++z) {
      for (std::int32_t y = h.first; y < h.end; ++y) {
        const std::int64_t row = image * shape.out_volume +
                                 (static_cast<std::int64_t>(z) * shape.axis[1].out + y) * shape.axis[2].out;
        for (std::int32_t x = w.first; x < w.end; ++x) {
          if (indices[row + x] == i) sum += grad_output[row + x];
        }
      }
    }
    grad_input[image * shape.in_volume + i] = sum;
  }
}

/// A thread owns one output voxel.
// budget: <=64 registers, 0 B shared, 256 threads, occupancy >= 0.75
__global__ void __launch_bounds__(kBlock)
    pool3d_average_forward_voxel_kernel(const float* input, PoolShape shape, float* output) {
  const std::int64_t i = thread_index();
  if (i >= shape.out_volume) return;
  const Voxel voxel = voxel_at(i, shape.axis[1].out, shape.axis[2].out);
  const auto [d, h, w] = window_of(shape, voxel);
  const float divisor = pool_divisor<float>(shape, voxel.d, voxel.h, voxel.w);
  for (std::int64_t image = blockIdx.y; image < shape.images; image += gridDim.y) {
    const float* volume = input + image * shape.in_volume;
    float sum = 0.0f;
    for (std::int32_t z = d.first; z < d.end; ++z) {
      for (std::int32_t y = h.first; y < h.end; ++y) {
        const float* row = volume + (z * shape.axis[1].in + y) * shape.axis[2].in;
        for (std::int32_t x = w.first; x < w.end; ++x) sum += row[x];
      }
    }
    output[image * shape.out_volume + i] = sum / divisor;
  }
}

/// A thread owns one input voxel and adds its share of every window that covers it.
// budget: <=56 registers, 0 B shared, 256 threads, occupancy >= 0.5
__global__ void __launch_bounds__(kBlock)
    pool3d_average_backward_voxel_kernel(const float* grad_output, PoolShape shape, float* grad_input) {
  const std::int64_t i = thread_index();
  if (i >= shape.in_volume) return;
  const auto [d, h, w] = windows_over(shape, voxel_at(i, shape.axis[1].in, shape.axis[2].in));
  for (std::int64_t image = blockIdx.y; image < shape.images; image += gridDim.y) {
    float sum = 0.0f;
    for (std::int32_t z = d.first; z < d.end; ++z) {
      for (std::int32_t y = h.first; y < h.end; ++y) {
        const float* row = grad_output + image * shape.out_volume +
                           (static_cast<std::int64_t>(z) * shape.axis[1].out + y) * shape.axis[2].out;
        for (std::int32_t x = w.first; x < w.end; ++x) sum += row[x] / pool_divisor<float>(shape, z, y, x);
      }
    }
    grad_input[image * shape.in_volume + i] = sum;
  }
}

void max_forward(const Tensor& input, const PoolOptions& options, Tensor& output, Tensor& indices) {
  const PoolShape shape = pool_shape(input, output, &indices, options);
  require_dtype(kOp, input, DType::f32);
  if (shape.images == 0) return;
  launch(kOp, pool3d_max_forward_voxel_kernel, cover_rows(shape.out_volume, shape.images, kBlock),
         input.device(), input.data<float>(), shape, output.data<float>(), indices.data<std::int32_t>());
}

void max_backward(const Tensor& grad_output, const Tensor& indices, const PoolOptions& options,
                  Tensor& grad_input) {
  const PoolShape shape = pool_shape(grad_input, grad_output, &indices, options);
  require_dtype(kOp, grad_input, DType::f32);
  if (shape.images == 0) return;
  launch(kOp, pool3d_max_backward_voxel_kernel, cover_rows(shape.in_volume, shape.images, kBlock),
         grad_input.device(), grad_output.data<float>(), indices.data<std::int32_t>(), shape,
         grad_input.data<float>());
}

void average_forward(const Tensor& input, const PoolOptions& options, Tensor& output) {
  const PoolShape shape = pool_shape(input, output, nullptr, options);
  require_dtype(kOp, input, DType::f32);
  if (shape.images == 0) return;
  launch(kOp, pool3d_average_forward_voxel_kernel, cover_rows(shape.out_volume, shape.images, kBlock),
         input.device(), input.data<float>(), shape, output.data<float>());
}

void average_backward(const Tensor& grad_output, const PoolOptions& options, Tensor& grad_input) {
  const PoolShape shape = pool_shape(grad_input, grad_output, nullptr, options);
  require_dtype(kOp, grad_input, DType::f32);
  if (shape.images == 0) return;
  launch(kOp, pool3d_average_backward_voxel_kernel, cover_rows(shape.in_volume, shape.images, kBlock),
         grad_input.device(), grad_output.data<float>(), shape, grad_input.data<float>());
}

}  // namespace

extern const Pool3d pool3d;
const Pool3d pool3d{max_forward, max_backward, average_forward, average_backward};

}  // namespace cinnabar::cuda
