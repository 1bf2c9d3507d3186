// Work split: one thread per voxel, blocks of 32 x 8 voxels of a slice; the arithmetic of a voxel is
//   epdiff_voxel.hpp, shared with the CPU.
// Shared memory: none. The 6 neighbours come from L1: x neighbours from the warp's own lines, y from the
//   block's, z from L2 (a plane of 3 components of 256^2 voxels is 0.8 MB).
// coad is one pass: sample, Jacobian, product. coad_backward writes the gradients of the Jacobian (9
// channels)
//   and of the sample (3), then gathers the first with the transposed differences and scatters the second.
// Limiting resource: memory, 36 bytes a voxel for the three-field operators.

#include "kernels/epdiff.hpp"

#include "kernels/cuda/field_volume.cuh"
#include "kernels/epdiff_voxel.hpp"
#include "kernels/warp.hpp"

namespace cinnabar::cuda {
namespace {

// budget: <=40 registers, 0 B shared, 256 threads, occupancy >= 1.0
__global__ void __launch_bounds__(kTileThreads)
    image_gradient_voxel_kernel(const float* image, Volume volume, float* gradient) {
  const std::int64_t plane = volume.voxels;
  for_each_slice(volume, [=](const Stencil<float>& near, const VoxelIndex& at) {
    const float* f = image + at.n * plane + at.offset;
    float* target = gradient + 3 * at.n * plane + at.offset;
    for (int d = 0; d < 3; ++d) target[d * plane] = near.difference(f, d);
  });
}

// budget: <=40 registers, 0 B shared, 256 threads, occupancy >= 1.0
__global__ void __launch_bounds__(kTileThreads)
    image_gradient_backward_voxel_kernel(const float* grad_gradient, Volume volume, float* grad_image) {
  const std::int64_t plane = volume.voxels;
  for_each_slice(volume, [=](const Stencil<float>& near, const VoxelIndex& at) {
    const float* g = grad_gradient + 3 * at.n * plane + at.offset;
    grad_image[at.n * plane + at.offset] =
        near.transposed(g, 0) + near.transposed(g + plane, 1) + near.transposed(g + 2 * plane, 2);
  });
}

// budget: <=56 registers, 0 B shared, 256 threads, occupancy >= 1.0
__global__ void __launch_bounds__(kTileThreads)
    jacobian_voxel_kernel(const float* displacement, Volume volume, float* jacobian) {
  const std::int64_t plane = volume.voxels;
  for_each_slice(volume, [=](const Stencil<float>& near, const VoxelIndex& at) {
    const Matrix3<float> j = map_jacobian(near, displacement + 3 * at.n * plane + at.offset, plane);
    float* target = jacobian + 9 * at.n * plane + at.offset;
#pragma unroll
    for (int k = 0; k < 9; ++k) target[k * plane] = j.at[k / 3][k % 3];
  });
}

/// grad_displacement = or += the transposed differences of a Jacobian's gradient.
// budget: <=48 registers, 0 B shared, 256 threads, occupancy >= 0.625
template <bool kAdd>
__global__ void __launch_bounds__(kTileThreads)
    jacobian_backward_voxel_kernel(const float* grad_jacobian, Volume volume, float* grad_displacement) {
  const std::int64_t plane = volume.voxels;
  for_each_slice(volume, [=](const Stencil<float>& near, const VoxelIndex& at) {
    const float* g = grad_jacobian + 9 * at.n * plane + at.offset;
    float* target = grad_displacement + 3 * at.n * plane + at.offset;
    for (int k = 0; k < 3; ++k) {
      const float gathered = jacobian_voxel_backward(near, g, plane, k);
      target[k * plane] = kAdd ? target[k * plane] + gathered : gathered;
    }
  });
}

// budget: <=56 registers, 0 B shared, 256 threads, occupancy >= 1.0
__global__ void __launch_bounds__(kTileThreads)
    jacobian_determinant_voxel_kernel(const float* displacement, Volume volume, float* result) {
  const std::int64_t plane = volume.voxels;
  for_each_slice(volume, [=](const Stencil<float>& near, const VoxelIndex& at) {
    result[at.n * plane + at.offset] =
        determinant(map_jacobian_one_sided(near, displacement + 3 * at.n * plane + at.offset, plane));
  });
}

// budget: <=64 registers, 0 B shared, 256 threads, occupancy >= 0.75
__global__ void __launch_bounds__(kTileThreads)
    determinant_cofactor_voxel_kernel(const float* grad_determinant, const float* displacement, Volume volume,
                                      float* grad_jacobian) {
  const std::int64_t plane = volume.voxels;
  for_each_slice(volume, [=](const Stencil<float>& near, const VoxelIndex& at) {
    const Matrix3<float> j = map_jacobian_one_sided(near, displacement + 3 * at.n * plane + at.offset, plane);
    const float g = grad_determinant[at.n * plane + at.offset];
    float* target = grad_jacobian + 9 * at.n * plane + at.offset;
#pragma unroll
    for (int k = 0; k < 9; ++k) target[k * plane] = g * near.face_scale(k % 3) * cofactor(j, k / 3, k % 3);
  });
}

__device__ __forceinline__ Vector3 sample_momentum(const float* momentum, const Volume& volume,
                                                   const SampleCell& cell) {
  const std::int64_t plane = volume.voxels;
  float corner[8];
  Vector3 sample;
  load_corners(momentum, volume, cell, corner);
  sample.x = blend(corner, cell);
  load_corners(momentum + plane, volume, cell, corner);
  sample.y = blend(corner, cell);
  load_corners(momentum + 2 * plane, volume, cell, corner);
  sample.z = blend(corner, cell);
  return sample;
}

// budget: <=64 registers, 0 B shared, 256 threads, occupancy >= 0.75
__global__ void __launch_bounds__(kTileThreads)
    coad_voxel_kernel(const float* displacement, const float* momentum, Volume volume, float* result) {
  const std::int64_t plane = volume.voxels;
  for_each_slice(volume, [=](const Stencil<float>& near, const VoxelIndex& at) {
    const std::int64_t item = 3 * at.n * plane;
    const float* u = displacement + item + at.offset;
    const SampleCell cell = sample_cell<Boundary::zeros>(volume, at, load_vector(u, volume.voxels));
    const Vector3 sample = sample_momentum(momentum + item, volume, cell);
    const float s[3] = {sample.x, sample.y, sample.z};
    float out[3];
    coad_voxel(map_jacobian(near, u, plane), s, out);
    store_vector(result + item + at.offset, volume.voxels, {out[0], out[1], out[2]});
  });
}

/// grad_displacement gets the part that moves the sample; the Jacobian's part is added by a gather.
// budget: <=64 registers, 0 B shared, 256 threads, occupancy >= 0.5
__global__ void __launch_bounds__(kTileThreads)
    coad_backward_voxel_kernel(const float* grad_result, const float* displacement, const float* momentum,
                               Volume volume, float* grad_jacobian, float* grad_sample,
                               float* grad_displacement) {
  const std::int64_t plane = volume.voxels;
  for_each_slice(volume, [=](const Stencil<float>& near, const VoxelIndex& at) {
    const std::int64_t item = 3 * at.n * plane;
    const std::int64_t here = item + at.offset;
    const float* u = displacement + here;
    const SampleCell cell = sample_cell<Boundary::zeros>(volume, at, load_vector(u, volume.voxels));
    const Vector3 sample = sample_momentum(momentum + item, volume, cell);
    const Vector3 g = load_vector(grad_result + here, volume.voxels);
    const float s[3] = {sample.x, sample.y, sample.z};
    const float grad[3] = {g.x, g.y, g.z};
    Matrix3<float> grad_j;
    float grad_s[3];
    coad_voxel_backward(map_jacobian(near, u, plane), s, grad, grad_j, grad_s);
    float* target = grad_jacobian + 9 * at.n * plane + at.offset;
#pragma unroll
    for (int k = 0; k < 9; ++k) target[k * plane] = grad_j.at[k / 3][k % 3];
    store_vector(grad_sample + here, volume.voxels, {grad_s[0], grad_s[1], grad_s[2]});
    float weighted[8] = {};
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      float corner[8];
      load_corners(momentum + item + c * plane, volume, cell, corner);
#pragma unroll
      for (int k = 0; k < 8; ++k) weighted[k] += grad_s[c] * corner[k];
    }
    store_vector(grad_displacement + here, volume.voxels, blend_slopes(weighted, cell));
  });
}

// budget: <=64 registers, 0 B shared, 256 threads, occupancy >= 0.5
__global__ void __launch_bounds__(kTileThreads)
    coad_inf_voxel_kernel(const float* velocity, const float* momentum, Volume volume, float* result) {
  const std::int64_t plane = volume.voxels;
  for_each_slice(volume, [=](const Stencil<float>& near, const VoxelIndex& at) {
    const std::int64_t here = 3 * at.n * plane + at.offset;
    for (int i = 0; i < 3; ++i) {
      result[here + i * plane] = coad_inf_voxel(near, velocity + here, momentum + here, plane, i);
    }
  });
}

// budget: <=128 registers, 0 B shared, 256 threads, occupancy >= 0.25
__global__ void __launch_bounds__(kTileThreads)
    coad_inf_backward_voxel_kernel(const float* grad_result, const float* velocity, const float* momentum,
                                   Volume volume, float* grad_velocity, float* grad_momentum) {
  const std::int64_t plane = volume.voxels;
  for_each_slice(volume, [=](const Stencil<float>& near, const VoxelIndex& at) {
    const std::int64_t here = 3 * at.n * plane + at.offset;
    const float* g = grad_result + here;
    for (int k = 0; k < 3; ++k) {
      grad_velocity[here + k * plane] = coad_inf_voxel_grad_velocity(near, g, momentum + here, plane, k);
      grad_momentum[here + k * plane] = coad_inf_voxel_grad_momentum(near, g, velocity + here, plane, k);
    }
  });
}

// budget: <=48 registers, 0 B shared, 256 threads, occupancy >= 0.75
__global__ void __launch_bounds__(kTileThreads)
    jacobian_times_vector_voxel_kernel(const float* velocity, const float* vector, Volume volume,
                                       float* result) {
  const std::int64_t plane = volume.voxels;
  for_each_slice(volume, [=](const Stencil<float>& near, const VoxelIndex& at) {
    const std::int64_t here = 3 * at.n * plane + at.offset;
    for (int i = 0; i < 3; ++i) {
      result[here + i * plane] = jacobian_times_vector_voxel(near, velocity + here, vector + here, plane, i);
    }
  });
}

// budget: <=80 registers, 0 B shared, 256 threads, occupancy >= 0.375
__global__ void __launch_bounds__(kTileThreads)
    jacobian_times_vector_backward_voxel_kernel(const float* grad_result, const float* velocity,
                                                const float* vector, Volume volume, float* grad_velocity,
                                                float* grad_vector) {
  const std::int64_t plane = volume.voxels;
  for_each_slice(volume, [=](const Stencil<float>& near, const VoxelIndex& at) {
    const std::int64_t here = 3 * at.n * plane + at.offset;
    const float* g = grad_result + here;
    for (int i = 0; i < 3; ++i) {
      grad_velocity[here + i * plane] =
          jacobian_times_vector_voxel_grad_velocity(near, g, vector + here, plane, i);
      grad_vector[here + i * plane] =
          jacobian_times_vector_voxel_grad_vector(near, g, velocity + here, plane, i);
    }
  });
}

/// Launches a kernel that reads one tensor.
void run(const char* op, void (*kernel)(const float*, Volume, float*), const Tensor& input,
         std::int64_t channels, Tensor& output, std::int64_t output_channels) {
  const FieldShape shape = epdiff_shape(op, input, channels, output, output_channels);
  const Volume volume = volume_of(op, shape, input.dtype());
  launch(op, kernel, cover_volume(volume), input.device(), input.data<float>(), volume, output.data<float>());
}

/// Launches a kernel that reads two fields.
void run(const char* op, void (*kernel)(const float*, const float*, Volume, float*), const Tensor& first,
         const Tensor& second, Tensor& result) {
  const FieldShape shape = epdiff_shape(op, first, second, result);
  const Volume volume = volume_of(op, shape, first.dtype());
  launch(op, kernel, cover_volume(volume), first.device(), first.data<float>(), second.data<float>(), volume,
         result.data<float>());
}

/// Launches the transpose of such a kernel.
void run(const char* op, void (*kernel)(const float*, const float*, const float*, Volume, float*, float*),
         const Tensor& grad_result, const Tensor& first, const Tensor& second, Tensor& grad_first,
         Tensor& grad_second) {
  const FieldShape shape = epdiff_shape(op, grad_result, first, second, grad_first, grad_second);
  const Volume volume = volume_of(op, shape, first.dtype());
  launch(op, kernel, cover_volume(volume), first.device(), grad_result.data<float>(), first.data<float>(),
         second.data<float>(), volume, grad_first.data<float>(), grad_second.data<float>());
}

void image_gradient(const Tensor& image, Tensor& gradient) {
  run("image_gradient", image_gradient_voxel_kernel, image, 1, gradient, 3);
}

void image_gradient_backward(const Tensor& grad_gradient, Tensor& grad_image) {
  run("image_gradient_backward", image_gradient_backward_voxel_kernel, grad_gradient, 3, grad_image, 1);
}

void jacobian(const Tensor& displacement, Tensor& result) {
  run("jacobian", jacobian_voxel_kernel, displacement, 3, result, 9);
}

void jacobian_backward(const Tensor& grad_jacobian, Tensor& grad_displacement) {
  run("jacobian_backward", jacobian_backward_voxel_kernel<false>, grad_jacobian, 9, grad_displacement, 3);
}

void jacobian_determinant(const Tensor& displacement, Tensor& result) {
  run("jacobian_determinant", jacobian_determinant_voxel_kernel, displacement, 3, result, 1);
}

void jacobian_determinant_backward(const Tensor& grad_determinant, const Tensor& displacement,
                                   Tensor& grad_displacement) {
  constexpr const char* kOp = "jacobian_determinant_backward";
  const FieldShape shape = epdiff_shape(kOp, displacement, 3, grad_determinant, 1);
  epdiff_shape(kOp, displacement, 3, grad_displacement, 3);
  const Volume volume = volume_of(kOp, shape, displacement.dtype());
  const Device device = displacement.device();
  Tensor grad_jacobian = Tensor::empty(displacement.shape().with(1, 9), DType::f32, device);
  launch(kOp, determinant_cofactor_voxel_kernel, cover_volume(volume), device, grad_determinant.data<float>(),
         displacement.data<float>(), volume, grad_jacobian.data<float>());
  launch(kOp, jacobian_backward_voxel_kernel<false>, cover_volume(volume), device,
         grad_jacobian.data<float>(), volume, grad_displacement.data<float>());
}

void coad(const Tensor& displacement, const Tensor& momentum, Tensor& result) {
  run("coad", coad_voxel_kernel, displacement, momentum, result);
}

void coad_backward(const Tensor& grad_result, const Tensor& displacement, const Tensor& momentum,
                   Tensor& grad_displacement, Tensor& grad_momentum) {
  constexpr const char* kOp = "coad_backward";
  const FieldShape shape =
      epdiff_shape(kOp, grad_result, displacement, momentum, grad_displacement, grad_momentum);
  const Volume volume = volume_of(kOp, shape, displacement.dtype());
  const Device device = displacement.device();
  Tensor grad_jacobian = Tensor::empty(displacement.shape().with(1, 9), DType::f32, device);
  Tensor grad_sample = Tensor::empty_like(momentum);
  launch(kOp, coad_backward_voxel_kernel, cover_volume(volume), device, grad_result.data<float>(),
         displacement.data<float>(), momentum.data<float>(), volume, grad_jacobian.data<float>(),
         grad_sample.data<float>(), grad_displacement.data<float>());
  launch(kOp, jacobian_backward_voxel_kernel<true>, cover_volume(volume), device, grad_jacobian.data<float>(),
         volume, grad_displacement.data<float>());
  warp.backward_input(grad_sample, displacement, Boundary::zeros, grad_momentum);
}

void coad_inf(const Tensor& velocity, const Tensor& momentum, Tensor& result) {
  run("coad_inf", coad_inf_voxel_kernel, velocity, momentum, result);
}

void coad_inf_backward(const Tensor& grad_result, const Tensor& velocity, const Tensor& momentum,
                       Tensor& grad_velocity, Tensor& grad_momentum) {
  run("coad_inf_backward", coad_inf_backward_voxel_kernel, grad_result, velocity, momentum, grad_velocity,
      grad_momentum);
}

void jacobian_times_vector(const Tensor& velocity, const Tensor& vector, Tensor& result) {
  run("jacobian_times_vector", jacobian_times_vector_voxel_kernel, velocity, vector, result);
}

void jacobian_times_vector_backward(const Tensor& grad_result, const Tensor& velocity, const Tensor& vector,
                                    Tensor& grad_velocity, Tensor& grad_vector) {
  run("jacobian_times_vector_backward", jacobian_times_vector_backward_voxel_kernel, grad_result, velocity,
      vector, grad_velocity, grad_vector);
}

}  // namespace

extern const Epdiff epdiff;
const Epdiff epdiff{image_gradient,
                    image_gradient_backward,
                    jacobian,
                    jacobian_backward,
                    jacobian_determinant,
                    jacobian_determinant_backward,
                    coad,
                    coad_backward,
                    coad_inf,
                    coad_inf_backward,
                    jacobian_times_vector,
                    jacobian_times_vector_backward};

}  // namespace cinnabar::cuda
