// Work split: forward, one thread per voxel, blocks of 32 x 8 voxels of a slice, all N iterations fused; a
//   thread stops at its fixed point or 2-cycle, a warp with its slowest lane. backward, a fixed number of
//   threads walk over the voxels; each keeps the trajectory of its voxel in its own strip of global scratch
//   (66 MB at most for N = 20), because 65 positions in registers or local memory would spill.
// Shared memory: none.
// The gradients are scattered as fixed-point integers (fixed_point.cuh), so they are deterministic. How large
//   the addends get is known only after the reverse iteration, so it runs twice: once for the peaks, once to
//   add. Addends of a fixed point or 2-cycle are summed first and added once.
// Limiting resource: latency of dependent samples (two a step); 36 bytes a voxel cross the bus once.
// Compiled and emulated only, not yet run on a GPU.

#include "kernels/update_inverse.hpp"

#include <algorithm>

#include "kernels/cuda/field_volume.cuh"
#include "kernels/cuda/fixed_point.cuh"

namespace cinnabar::cuda {
namespace {

constexpr int kMostIterations = 64;
constexpr int kReverseBlock = 128;
constexpr std::int64_t kReverseThreads = std::int64_t{1} << 18;

__device__ __forceinline__ Vector3 negated(const Vector3& v) {
  return {-v.x, -v.y, -v.z};
}
__device__ __forceinline__ void add_to(Vector3& sum, const Vector3& v) {
  sum.x += v.x;
  sum.y += v.y;
  sum.z += v.z;
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

/// What one reverse run reads and where its threads keep trajectories: position k, component c of a thread at
/// strip[(3 k + c) * threads].
struct Reverse {
  const float* grad;
  const float* psi;
  const float* increment;
  float* strip;
  std::int64_t threads;
  std::int64_t voxels;  ///< of the whole batch
  int iterations;
};

/// Where addends go: to the peaks while measuring, else to the sums.
struct Target {
  unsigned* peak;
  FixedPointScale scale;
  long long* sums;
};

/// A field's slopes times a vector from the left: result_axis = sum_c (d field_c / d axis) v_c.
__device__ __forceinline__ Vector3 transposed_times(const float* field, const Volume& volume,
                                                    const SampleCell& cell, const Vector3& v) {
  float weighted[8] = {};
  const float value[3] = {v.x, v.y, v.z};
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    float corner[8];
    load_corners(field + static_cast<std::int64_t>(c) * volume.voxels, volume, cell, corner);
#pragma unroll
    for (int k = 0; k < 8; ++k) weighted[k] += value[c] * corner[k];
  }
  return cell.corners == 0 ? Vector3{0.0f, 0.0f, 0.0f} : blend_slopes(weighted, cell);
}

/// The adjoint of one iteration that started at rho. Returns what w receives; `adjoint` moves one step back.
__device__ __forceinline__ Vector3 step_back(const float* psi, const float* increment, const Volume& volume,
                                             const VoxelIndex& at, const Vector3& rho, Vector3& adjoint) {
  const SampleCell at_rho = sample_cell<Boundary::zeros>(volume, at, rho);
  const Vector3 w = sample_vector(increment, volume, at_rho);
  const SampleCell at_back = sample_cell<Boundary::zeros>(volume, at, negated(w));
  Vector3 of_w = transposed_times(psi, volume, at_back, adjoint);
  add_to(of_w, adjoint);
  of_w = negated(of_w);
  adjoint = transposed_times(increment, volume, at_rho, of_w);
  return of_w;
}

__device__ __forceinline__ float size_of_vector(const Vector3& v) {
  return fabsf(v.x) + fabsf(v.y) + fabsf(v.z);
}

template <bool kMeasure>
__device__ __forceinline__ void add_corners(const Target& target, const Volume& volume, std::int64_t item,
                                            const SampleCell& cell, const Vector3& value, unsigned& peak) {
  if (kMeasure) {
    const unsigned x = __float_as_uint(fabsf(value.x)), y = __float_as_uint(fabsf(value.y)),
                   z = __float_as_uint(fabsf(value.z));
    peak = max(peak, max(x, max(y, z)));
    return;
  }
  const float factor = fixed_point_factor(target.scale, *target.scale.peak);
#pragma unroll 1
  for (int k = 0; k < 8; ++k) {
    if (((cell.corners >> k) & 1u) == 0) continue;
    const float weight = corner_weight(cell, k) * factor;
    long long* corner = target.sums + item + cell.offset + corner_offset(volume, k);
    add_fixed_point(corner, to_fixed_point(weight * value.x));
    add_fixed_point(corner + volume.voxels, to_fixed_point(weight * value.y));
    add_fixed_point(corner + 2 * static_cast<std::int64_t>(volume.voxels), to_fixed_point(weight * value.z));
  }
}

/// Adds what the iterations that started at rho give to the two fields.
template <bool kMeasure>
__device__ void add_iteration(const Reverse& run, const Volume& volume, const VoxelIndex& at,
                              const Vector3& rho, const Vector3& to_psi, const Vector3& to_increment,
                              const Target& psi, const Target& increment, unsigned (&peak)[2]) {
  const std::int64_t item = 3 * at.n * volume.voxels;
  const SampleCell at_rho = sample_cell<Boundary::zeros>(volume, at, rho);
  add_corners<kMeasure>(increment, volume, item, at_rho, to_increment, peak[1]);
  const Vector3 w = sample_vector(run.increment + item, volume, at_rho);
  const SampleCell at_back = sample_cell<Boundary::zeros>(volume, at, negated(w));
  add_corners<kMeasure>(psi, volume, item, at_back, to_psi, peak[0]);
}

/// Fills the strip until the iteration repeats. Returns the index of the first position that repeats and sets
/// the length of the cycle, or returns `iterations` and a length of 0.
__device__ __forceinline__ int record_trajectory(const Reverse& run, const Volume& volume,
                                                 const VoxelIndex& at, float* strip, int& cycle) {
  const std::int64_t item = 3 * at.n * volume.voxels;
  Vector3 rho = load_vector(run.psi + item + at.offset, volume.voxels);
  Vector3 previous = rho;
  cycle = 0;
  for (int k = 0; k < run.iterations; ++k) {
    float* slot = strip + 3 * k * run.threads;
    slot[0] = rho.x;
    slot[run.threads] = rho.y;
    slot[2 * run.threads] = rho.z;
    const Vector3 next = advance(run.psi + item, run.increment + item, volume, at, rho);
    if (same_bits(next, rho)) {
      cycle = 1;
    } else if (k > 0 && same_bits(next, previous)) {
      cycle = 2;
    }
    if (cycle != 0) return k;
    previous = rho;
    rho = next;
  }
  return run.iterations;
}

template <bool kMeasure>
__device__ __forceinline__ void reverse_voxel(const Reverse& run, const Volume& volume, const VoxelIndex& at,
                                              float* strip, const Target& psi, const Target& increment,
                                              unsigned (&peak)[2]) {
  const std::int64_t item = 3 * at.n * volume.voxels;
  const auto position = [&](int k) {
    const float* slot = strip + 3 * k * run.threads;
    return Vector3{slot[0], slot[run.threads], slot[2 * run.threads]};
  };
  Vector3 adjoint = load_vector(run.grad + item + at.offset, volume.voxels);
  const float negligible = 1e-9f * size_of_vector(adjoint);
  bool alive = !(size_of_vector(adjoint) <= 0.0f);
  int cycle = 0;
  const int last = record_trajectory(run, volume, at, strip, cycle);
  // A cycle of one or two positions: sum what its iterations give, then add once per position.
  for (int back = 0; back < cycle && alive; ++back) {
    Vector3 running = adjoint;
    Vector3 to_psi{0.0f, 0.0f, 0.0f}, to_increment{0.0f, 0.0f, 0.0f};
    bool running_alive = true;
    for (int k = run.iterations - 1; k >= last && running_alive; --k) {
      const int offset = cycle == 2 ? (k - last) % 2 : 0;
      const Vector3 arriving = running;
      const Vector3 of_w =
          step_back(run.psi + item, run.increment + item, volume, at, position(last - offset), running);
      if (offset == back) {
        add_to(to_psi, arriving);
        add_to(to_increment, of_w);
      }
      running_alive = !(size_of_vector(running) <= negligible);
    }
    add_iteration<kMeasure>(run, volume, at, position(last - back), to_psi, to_increment, psi, increment,
                            peak);
    if (back == cycle - 1) {
      adjoint = running;
      alive = running_alive;
    }
  }
  for (int k = last - 1; k >= 0 && alive; --k) {
    const Vector3 rho = position(k);
    const Vector3 to_psi = adjoint;
    const Vector3 of_w = step_back(run.psi + item, run.increment + item, volume, at, rho, adjoint);
    add_iteration<kMeasure>(run, volume, at, rho, to_psi, of_w, psi, increment, peak);
    alive = !(size_of_vector(adjoint) <= negligible);
  }
  if (!alive) return;
  // rho_0 is u_psi of the voxel itself.
  const SampleCell here = sample_cell<Boundary::zeros>(volume, at, {0.0f, 0.0f, 0.0f});
  add_corners<kMeasure>(psi, volume, item, here, adjoint, peak[0]);
}

template <bool kMeasure>
__global__ void __launch_bounds__(kReverseBlock)
    update_inverse_backward_strip_kernel(Reverse run, Volume volume, Target psi, Target increment) {
  unsigned peak[2] = {0, 0};
  if (!kMeasure && (!peak_is_finite(*psi.scale.peak) || !peak_is_finite(*increment.scale.peak))) return;
  float* strip = run.strip + thread_index();
  for (std::int64_t voxel = thread_index(); voxel < run.voxels; voxel += run.threads) {
    VoxelIndex at;
    at.n = voxel / volume.voxels;
    at.offset = static_cast<int>(voxel - at.n * volume.voxels);
    at.z = at.offset / volume.plane;
    at.y = (at.offset - at.z * volume.plane) / volume.row;
    at.x = at.offset - at.z * volume.plane - at.y * volume.row;
    reverse_voxel<kMeasure>(run, volume, at, strip, psi, increment, peak);
  }
  if (kMeasure) {
    atomicMax(psi.peak, peak[0]);
    atomicMax(increment.peak, peak[1]);
  }
}

FieldShape inverse_shape(const char* op, const Tensor& psi, const Tensor& increment, int iterations) {
  const FieldShape shape = field_shape(op, "psi", psi, 3);
  require_field_like(op, "increment", increment, psi, 3);
  CINNABAR_CHECK(iterations >= 0 && iterations <= kMostIterations, op, "iterations must be in 0..",
                 kMostIterations, ", got ", iterations);
  return shape;
}

void forward(const Tensor& psi, const Tensor& increment, int iterations, Tensor& updated) {
  const FieldShape shape = inverse_shape("update_inverse", psi, increment, iterations);
  require_field_like("update_inverse", "updated", updated, psi, 3);
  const Volume volume = volume_of("update_inverse", shape, psi.dtype());
  launch("update_inverse", update_inverse_forward_voxel_kernel, cover_volume(volume), psi.device(),
         psi.data<float>(), increment.data<float>(), volume, iterations, updated.data<float>());
}

void backward(const Tensor& grad_updated, const Tensor& psi, const Tensor& increment, int iterations,
              Tensor& grad_psi, Tensor& grad_increment) {
  constexpr const char* kOp = "update_inverse_backward";
  const FieldShape shape = inverse_shape(kOp, psi, increment, iterations);
  require_field_like(kOp, "grad_updated", grad_updated, psi, 3);
  require_field_like(kOp, "grad_psi", grad_psi, psi, 3);
  require_field_like(kOp, "grad_increment", grad_increment, psi, 3);
  const Volume volume = volume_of(kOp, shape, psi.dtype());
  const Device device = psi.device();
  const std::int64_t voxels = shape.n * shape.voxels();
  const LaunchShape launch_shape = cover(std::min(voxels, kReverseThreads), kReverseBlock);
  const std::int64_t threads = static_cast<std::int64_t>(launch_shape.grid.x) * kReverseBlock;
  Tensor strip = Tensor::empty({3 * std::max(iterations, 1), threads}, DType::f32, device);
  const Reverse run{grad_updated.data<float>(),
                    psi.data<float>(),
                    increment.data<float>(),
                    strip.data<float>(),
                    threads,
                    voxels,
                    iterations};

  Tensor peaks = Tensor::zeros({2}, DType::i32, device);
  Tensor sums = Tensor::zeros({2, psi.numel()}, DType::i64, device);
  auto* peak = reinterpret_cast<unsigned*>(peaks.data<std::int32_t>());
  // Every iteration of every voxel can meet in one corner.
  const int bits = fixed_point_bits(shape.voxels() * (iterations + 1));
  const auto target = [&](int field) {
    return Target{peak + field,
                  {bits, peak + field},
                  reinterpret_cast<long long*>(sums.data<std::int64_t>()) + field * psi.numel()};
  };
  launch(kOp, update_inverse_backward_strip_kernel<true>, launch_shape, device, run, volume, target(0),
         target(1));
  launch(kOp, update_inverse_backward_strip_kernel<false>, launch_shape, device, run, volume, target(0),
         target(1));
  fixed_point_to_float(kOp, sums.rows(0, 1), target(0).scale, grad_psi);
  fixed_point_to_float(kOp, sums.rows(1, 1), target(1).scale, grad_increment);
}

}  // namespace

extern const UpdateInverse update_inverse;
const UpdateInverse update_inverse{forward, backward};

}  // namespace cinnabar::cuda
