// Work split: one thread per voxel, blocks of 32 x 8 voxels of a slice. forward: all N iterations fused; a
// thread
//   stops at its fixed point or 2-cycle, a warp with its slowest lane. backward: the implicit gradient of the
//   fixed point is pointwise (two samples with slopes and a 3x3 solve); its parts are then spread by the
//   deterministic transpose of warp.
// Shared memory: none.
// Limiting resource: latency of dependent samples (two an iteration); 36 bytes a voxel cross the bus once.

#include "kernels/update_inverse.hpp"

#include "kernels/cuda/field_volume.cuh"
#include "kernels/solve_3x3.hpp"
#include "kernels/warp.hpp"

namespace cinnabar::cuda {
namespace {

__device__ __forceinline__ Vector3 negated(const Vector3& v) {
  return {-v.x, -v.y, -v.z};
}
__device__ __forceinline__ bool same_bits(const Vector3& a, const Vector3& b) {
  return __float_as_uint(a.x) == __float_as_uint(b.x) && __float_as_uint(a.y) == __float_as_uint(b.y) &&
         __float_as_uint(a.z) == __float_as_uint(b.z);
}

__device__ __forceinline__ Vector3 sample_vector(const float* field, const Volume& volume,
                                                 const SampleCell& cell) {
  float corner[8];
  Vector3 sample;
  load_corners(field, volume, cell, corner);
  sample.x = blend(corner, cell);
  load_corners(field + volume.voxels, volume, cell, corner);
  sample.y = blend(corner, cell);
  load_corners(field + 2 * static_cast<std::int64_t>(volume.voxels), volume, cell, corner);
  sample.z = blend(corner, cell);
  return sample;
}

/// rho -> u_psi(x - w) - w with w = w(x + rho).
__device__ __forceinline__ Vector3 advance(const float* psi, const float* increment, const Volume& volume,
                                           const VoxelIndex& at, const Vector3& rho) {
  const Vector3 w = sample_vector(increment, volume, sample_cell<Boundary::zeros>(volume, at, rho));
  const Vector3 u = sample_vector(psi, volume, sample_cell<Boundary::zeros>(volume, at, negated(w)));
  return {u.x - w.x, u.y - w.y, u.z - w.z};
}

// budget: <=72 registers, 0 B shared, 256 threads, occupancy >= 0.375
__global__ void __launch_bounds__(kTileThreads)
    update_inverse_forward_voxel_kernel(const float* psi, const float* increment, Volume volume,
                                        int iterations, float* updated) {
  for (std::int64_t slice = blockIdx.z; slice < volume.slices; slice += gridDim.z) {
    VoxelIndex at;
    if (!voxel_of_thread(volume, slice, at)) continue;
    const std::int64_t item = 3 * at.n * volume.voxels;
    Vector3 rho = load_vector(psi + item + at.offset, volume.voxels);
    Vector3 previous = rho;
    for (int k = 0; k < iterations; ++k) {
      const Vector3 next = advance(psi + item, increment + item, volume, at, rho);
      if (same_bits(next, rho)) break;
      if (k > 0 && same_bits(next, previous)) {
        // A 2-cycle: the full loop would end on `next` if an even number of iterations is left.
        if ((iterations - k - 1) % 2 == 0) rho = next;
        break;
      }
      previous = rho;
      rho = next;
    }
    store_vector(updated + item + at.offset, volume.voxels, rho);
  }
}

/// Slopes of a field in a cell: slope[3 * axis + c] = d field_c / d axis; zero where the cell is outside.
__device__ __forceinline__ void sample_slopes(const float* field, const Volume& volume,
                                              const SampleCell& cell, float (&slope)[9]) {
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    float corner[8];
    load_corners(field + static_cast<std::int64_t>(c) * volume.voxels, volume, cell, corner);
    const Vector3 of_c = cell.corners == 0 ? Vector3{0.0f, 0.0f, 0.0f} : blend_slopes(corner, cell);
    slope[c] = of_c.x;
    slope[3 + c] = of_c.y;
    slope[6 + c] = of_c.z;
  }
}

/// Where the gradient of a voxel comes from and the parts it is written to.
struct Reverse {
  const float* grad;
  const float* psi;
  const float* increment;
  const float* updated;
  float* back;
  float* to_psi;
  float* to_increment;
};

// budget: <=128 registers, 0 B shared, 256 threads, occupancy >= 0.25
__global__ void __launch_bounds__(kTileThreads)
    update_inverse_backward_voxel_kernel(Reverse run, Volume volume) {
  for (std::int64_t slice = blockIdx.z; slice < volume.slices; slice += gridDim.z) {
    VoxelIndex at;
    if (!voxel_of_thread(volume, slice, at)) continue;
    const std::int64_t item = 3 * at.n * volume.voxels;
    const Vector3 rho = load_vector(run.updated + item + at.offset, volume.voxels);
    const SampleCell at_rho = sample_cell<Boundary::zeros>(volume, at, rho);
    const Vector3 back = negated(sample_vector(run.increment + item, volume, at_rho));
    float slope_w[9], slope_u[9];
    sample_slopes(run.increment + item, volume, at_rho, slope_w);
    sample_slopes(run.psi + item, volume, sample_cell<Boundary::zeros>(volume, at, back), slope_u);
    float system[9];  // (I + A Dw)^T as in kernels/cpu/update_inverse.cpp
#pragma unroll
    for (int i = 0; i < 3; ++i) {
#pragma unroll
      for (int j = 0; j < 3; ++j) {
        system[3 * i + j] = (i == j ? 1.0f : 0.0f) + slope_w[3 * i + j] + slope_w[3 * i] * slope_u[j] +
                            slope_w[3 * i + 1] * slope_u[3 + j] + slope_w[3 * i + 2] * slope_u[6 + j];
      }
    }
    const Vector3 grad = load_vector(run.grad + item + at.offset, volume.voxels);
    const float right[3] = {grad.x, grad.y, grad.z};
    float a[3], b[3];
    solve_3x3(system, right, a);
#pragma unroll
    for (int i = 0; i < 3; ++i) {
      b[i] = -(a[i] + (slope_u[3 * i] * a[0] + slope_u[3 * i + 1] * a[1] + slope_u[3 * i + 2] * a[2]));
    }
    store_vector(run.back + item + at.offset, volume.voxels, back);
    store_vector(run.to_psi + item + at.offset, volume.voxels, {a[0], a[1], a[2]});
    store_vector(run.to_increment + item + at.offset, volume.voxels, {b[0], b[1], b[2]});
  }
}

void forward(const Tensor& psi, const Tensor& increment, int iterations, Tensor& updated) {
  const FieldShape shape = update_inverse_shape(psi, increment, iterations, updated);
  const Volume volume = volume_of("update_inverse", shape, psi.dtype());
  launch("update_inverse", update_inverse_forward_voxel_kernel, cover_volume(volume), psi.device(),
         psi.data<float>(), increment.data<float>(), volume, iterations, updated.data<float>());
}

void backward(const Tensor& grad_updated, const Tensor& psi, const Tensor& increment, const Tensor& updated,
              Tensor& grad_psi, Tensor& grad_increment) {
  constexpr const char* kOp = "update_inverse_backward";
  const FieldShape shape =
      update_inverse_backward_shape(grad_updated, psi, increment, updated, grad_psi, grad_increment);
  const Volume volume = volume_of(kOp, shape, psi.dtype());
  Tensor back = Tensor::empty_like(psi), to_psi = Tensor::empty_like(psi),
         to_increment = Tensor::empty_like(psi);
  const Reverse run{grad_updated.data<float>(), psi.data<float>(),  increment.data<float>(),
                    updated.data<float>(),      back.data<float>(), to_psi.data<float>(),
                    to_increment.data<float>()};
  launch(kOp, update_inverse_backward_voxel_kernel, cover_volume(volume), psi.device(), run, volume);
  warp.backward_input(to_psi, back, Boundary::zeros, grad_psi);
  warp.backward_input(to_increment, updated, Boundary::zeros, grad_increment);
}

}  // namespace

extern const UpdateInverse update_inverse;
const UpdateInverse update_inverse{forward, backward};

}  // namespace cinnabar::cuda
