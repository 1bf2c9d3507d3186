// Work split: one thread per voxel, blocks of 32 x 8 voxels of a slice (field_volume.cuh); a thread finds its
//   cell once and loops over the channels.
// Shared memory: none. The 8 corners of neighbouring voxels overlap, L1 serves all but about one of them.
// backward_input scatters fixed-point integers (fixed_point.cuh), so it is deterministic; a lane passes its
//   upper-x terms to the next lane by shuffle where that one lies in the next cell: about 4 atomics a voxel
//   and channel on smooth fields instead of 8.
// Limiting resource: memory, 20 bytes a voxel for an image and 36 for a field; backward_input the L2 atomics.

#include "kernels/warp.hpp"

#include "kernels/cuda/field_volume.cuh"
#include "kernels/cuda/fixed_point.cuh"

namespace cinnabar::cuda {
namespace {

/// Channels of the input and how far its batch items lie apart (0: one item for the whole batch).
struct Channels {
  int count;
  std::int64_t input_stride;
};

/// kAddDisplacement: adds the displacement to the sample, which makes it a composition.
// budget: <=48 registers, 0 B shared, 256 threads, occupancy >= 0.625
template <Boundary kBoundary, bool kAddDisplacement>
__global__ void __launch_bounds__(kTileThreads)
    warp_forward_voxel_kernel(const float* input, const float* displacement, Volume volume, Channels channels,
                              float* output) {
  for (std::int64_t slice = blockIdx.z; slice < volume.slices; slice += gridDim.z) {
    VoxelIndex at;
    if (!voxel_of_thread(volume, slice, at)) continue;
    const float* u_at = displacement + at.n * 3 * volume.voxels + at.offset;
    const Vector3 u = load_vector(u_at, volume.voxels);
    const SampleCell cell = sample_cell<kBoundary>(volume, at, u);
    const float* channel = input + at.n * channels.input_stride;
    float* target = output + at.n * channels.count * volume.voxels + at.offset;
    for (int c = 0; c < channels.count; ++c) {
      float corner[8];
      load_corners(channel, volume, cell, corner);
      float value = blend(corner, cell);
      if (kAddDisplacement) value += c == 0 ? u.x : (c == 1 ? u.y : u.z);
      *target = value;
      channel += volume.voxels;
      target += volume.voxels;
    }
  }
}

// budget: <=64 registers, 0 B shared, 256 threads, occupancy >= 0.5
template <Boundary kBoundary>
__global__ void __launch_bounds__(kTileThreads)
    warp_backward_displacement_voxel_kernel(const float* grad_output, const float* input,
                                            const float* displacement, Volume volume, Channels channels,
                                            float* grad_displacement) {
  for (std::int64_t slice = blockIdx.z; slice < volume.slices; slice += gridDim.z) {
    VoxelIndex at;
    if (!voxel_of_thread(volume, slice, at)) continue;
    const std::int64_t here = at.n * 3 * volume.voxels + at.offset;
    const SampleCell cell =
        sample_cell<kBoundary>(volume, at, load_vector(displacement + here, volume.voxels));
    const float* channel = input + at.n * channels.input_stride;
    const float* grad = grad_output + at.n * channels.count * volume.voxels + at.offset;
    float corner[8] = {};  // the channel sum of grad_output times corner: slopes are linear in the corners
    for (int c = 0; c < channels.count; ++c) {
      float of_channel[8];
      load_corners(channel, volume, cell, of_channel);
#pragma unroll
      for (int k = 0; k < 8; ++k) corner[k] += *grad * of_channel[k];
      channel += volume.voxels;
      grad += volume.voxels;
    }
    store_vector(grad_displacement + here, volume.voxels, blend_slopes(corner, cell));
  }
}

// budget: <=40 registers, 0 B shared, 256 threads, occupancy >= 0.75
template <Boundary kBoundary>
__global__ void __launch_bounds__(kTileThreads)
    warp_backward_input_voxel_kernel(const float* grad_output, const float* displacement, Volume volume,
                                     Channels channels, FixedPointScale scale, long long* sums) {
  constexpr unsigned kAll = 0xFFFFFFFFu;
  const unsigned peak_bits = *scale.peak;
  if (!peak_is_finite(peak_bits)) return;
  const float factor = fixed_point_factor(scale, peak_bits);
  for (std::int64_t slice = blockIdx.z; slice < volume.slices; slice += gridDim.z) {
    VoxelIndex at;
    const bool active = voxel_of_thread(volume, slice, at);
    const std::int64_t here = at.n * 3 * volume.voxels + at.offset;
    const Vector3 u = active ? load_vector(displacement + here, volume.voxels) : Vector3{0.0f, 0.0f, 0.0f};
    SampleCell cell = sample_cell<kBoundary>(volume, at, u);
    if (!active) cell.corners = 0;
    // The next lane's low corners are this lane's high corners if its cell is the next one along x.
    const int next_x = __shfl_down_sync(kAll, cell.x.cell, 1);
    const int next_offset = __shfl_down_sync(kAll, cell.offset, 1);
    const unsigned next_corners = __shfl_down_sync(kAll, cell.corners, 1);
    const bool gives = threadIdx.x < 31 && cell.corners != 0 && next_x == cell.x.cell + 1 &&
                       next_offset == cell.offset + 1 &&
                       ((cell.corners >> 1) & 0x55u) == (next_corners & 0x55u);
    const bool given = __shfl_up_sync(kAll, gives ? 1 : 0, 1) != 0 && threadIdx.x > 0;
    const float* grad = grad_output + at.n * channels.count * volume.voxels + at.offset;
    long long* channel = sums + at.n * channels.input_stride;
    for (int c = 0; c < channels.count; ++c) {
      const float term = active ? *grad * factor : 0.0f;
#pragma unroll
      for (int k = 0; k < 8; k += 2) {
        const bool low_inside = ((cell.corners >> k) & 1u) != 0;
        const bool high_inside = ((cell.corners >> (k + 1)) & 1u) != 0;
        long long low = low_inside ? to_fixed_point(corner_weight(cell, k) * term) : 0;
        const long long high = high_inside ? to_fixed_point(corner_weight(cell, k + 1) * term) : 0;
        const long long passed = __shfl_up_sync(kAll, high, 1);
        if (given) low += passed;
        long long* corner = channel + cell.offset + corner_offset(volume, k);
        if (low_inside) add_fixed_point(corner, low);
        if (high_inside && !gives) add_fixed_point(corner + 1, high);
      }
      grad += volume.voxels;
      channel += volume.voxels;
    }
  }
}

Channels channels_of(const FieldShape& shape, const Tensor& input) {
  return {static_cast<int>(shape.c), input.shape(0) == 1 && shape.n > 1 ? 0 : shape.c * shape.voxels()};
}

void forward(const Tensor& input, const Tensor& displacement, Boundary boundary, Tensor& output) {
  const FieldShape shape = warp_shape("warp", input, displacement);
  require_field_like("warp", "output", output, displacement, shape.c);
  const Volume volume = volume_of("warp", shape, input.dtype());
  dispatch_boundary(boundary, [&](auto rule) {
    launch("warp", warp_forward_voxel_kernel<rule(), false>, cover_volume(volume), input.device(),
           input.data<float>(), displacement.data<float>(), volume, channels_of(shape, input),
           output.data<float>());
  });
}

void backward_input(const Tensor& grad_output, const Tensor& displacement, Boundary boundary,
                    Tensor& grad_input) {
  constexpr const char* kOp = "warp_backward_input";
  const FieldShape shape = warp_shape(kOp, grad_input, displacement);
  require_field_like(kOp, "grad_output", grad_output, displacement, shape.c);
  const Volume volume = volume_of(kOp, shape, displacement.dtype());
  const Tensor peak = find_peak(kOp, grad_output);
  Tensor sums = Tensor::zeros(grad_input.shape(), DType::i64, grad_input.device());
  const std::int64_t terms = shape.voxels() * (grad_input.shape(0) == 1 ? shape.n : 1);
  const FixedPointScale scale{fixed_point_bits(terms),
                              reinterpret_cast<const unsigned*>(peak.data<std::int32_t>())};
  dispatch_boundary(boundary, [&](auto rule) {
    launch(kOp, warp_backward_input_voxel_kernel<rule()>, cover_volume(volume), displacement.device(),
           grad_output.data<float>(), displacement.data<float>(), volume, channels_of(shape, grad_input),
           scale, reinterpret_cast<long long*>(sums.data<std::int64_t>()));
  });
  fixed_point_to_float(kOp, sums, scale, grad_input);
}

void backward_displacement(const Tensor& grad_output, const Tensor& input, const Tensor& displacement,
                           Boundary boundary, Tensor& grad_displacement) {
  constexpr const char* kOp = "warp_backward_displacement";
  const FieldShape shape = warp_shape(kOp, input, displacement);
  require_field_like(kOp, "grad_output", grad_output, displacement, shape.c);
  require_field_like(kOp, "grad_displacement", grad_displacement, displacement, 3);
  const Volume volume = volume_of(kOp, shape, input.dtype());
  dispatch_boundary(boundary, [&](auto rule) {
    launch(kOp, warp_backward_displacement_voxel_kernel<rule()>, cover_volume(volume), input.device(),
           grad_output.data<float>(), input.data<float>(), displacement.data<float>(), volume,
           channels_of(shape, input), grad_displacement.data<float>());
  });
}

void compose(const Tensor& outer, const Tensor& inner, Tensor& composed) {
  const FieldShape shape = warp_shape("compose", outer, inner);
  CINNABAR_CHECK(shape.c == 3, "compose", "outer needs 3 channels, got ", outer);
  require_field_like("compose", "composed", composed, inner, 3);
  const Volume volume = volume_of("compose", shape, outer.dtype());
  launch("compose", warp_forward_voxel_kernel<Boundary::zeros, true>, cover_volume(volume), outer.device(),
         outer.data<float>(), inner.data<float>(), volume, channels_of(shape, outer), composed.data<float>());
}

}  // namespace

extern const Warp warp;
const Warp warp{forward, backward_input, backward_displacement, compose};

}  // namespace cinnabar::cuda
