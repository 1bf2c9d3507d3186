// Work split: one thread warps one voxel; blocks of 128 threads take 128 neighbouring voxels of one batch
//   entry. A thread makes its point from the voxel's index, walks (cpab_field.cuh) and samples all channels
//   at the end (sample_point.cuh): the grid of points exists in registers only.
// backward: two kernels, each wanted or not. For the image, the walk and an add in fixed point, terms passed
//   on by shuffle. For the maps, the walk there and back with the moves in local memory (cpab_gradient.cuh),
//   the slope of the image sampled in between.
// Limiting resource: issue slots and divergence of the walks, as in cpab.cu; 8 bytes a voxel and channel.

#include "kernels/cpab_sample.hpp"

#include "kernels/cuda/cpab_gradient.cuh"
#include "kernels/cuda/sample_point.cuh"

namespace cinnabar::cuda {
namespace {

constexpr const char* kOp = "cpab_sample";
constexpr int kSamplingBlocks[] = {0, 8, 5, 4};  // of an SM, as kForwardBlocks

template <int D>
__device__ __forceinline__ void voxel_point(const SampleGeometry& geometry, unsigned p, float* point) {
  cpab_voxel_point<float, D>(p, geometry.extent, geometry.align_corners, point);
}

/// Where in the image a point of the domain lies.
template <int D>
__device__ __forceinline__ PointCell<D> locate_end(const SampleGeometry& geometry, const float* end) {
  float coordinates[D];
#pragma unroll
  for (int a = 0; a < D; ++a) coordinates[a] = cpab_sampler_coordinate(end[a]);
  return locate_sample<D>(coordinates, geometry);
}

// budget: <=128 registers, 0 B shared, 128 threads, occupancy >= 0.25
template <int D, bool kSteps>
__global__ void __launch_bounds__(kFlowBlock, kSamplingBlocks[D])
    cpab_sample_forward_voxel_kernel(FlowInput in, SampleGeometry geometry, const float* image,
                                     float* output) {
  const std::int64_t entry = static_cast<std::int64_t>(geometry.channels) * geometry.volume;
  visit_points<D>(in, [&](const BlockField<D>& field, std::int64_t n, unsigned p) {
    if (p >= in.count) return;
    float point[D];
    voxel_point<D>(geometry, p, point);
    walk_to_end<D, kSteps>(in, field, point);
    sample_channels(locate_end<D>(geometry, point), geometry, image + n * entry, output + n * entry + p);
  });
}

// budget: <=128 registers, 0 B shared, 128 threads, occupancy >= 0.25
template <int D, bool kSteps>
__global__ void __launch_bounds__(kFlowBlock, kSamplingBlocks[D])
    cpab_sample_backward_image_voxel_kernel(FlowInput in, SampleGeometry geometry, const float* grad_output,
                                            FixedPointScale scale, long long* sums) {
  const unsigned peak_bits = *scale.peak;
  if (!peak_is_finite(peak_bits)) return;
  const float factor = fixed_point_factor(scale, peak_bits);
  const std::int64_t entry = static_cast<std::int64_t>(geometry.channels) * geometry.volume;
  visit_points<D>(in, [&](const BlockField<D>& field, std::int64_t n, unsigned p) {
    const bool active = p < in.count;
    PointCell<D> cell{};
    if (active) {
      float point[D];
      voxel_point<D>(geometry, p, point);
      walk_to_end<D, kSteps>(in, field, point);
      cell = locate_end<D>(geometry, point);
    }
    scatter_channels(cell, geometry, active, grad_output + n * entry + p, factor, sums + n * entry);
  });
}

// budget: <=168 registers, 6400 B shared, 128 threads, occupancy >= 0.18
template <int D, bool kSteps>
__global__ void __launch_bounds__(kFlowBlock, kBackwardBlocks[D])
    cpab_sample_backward_maps_voxel_kernel(FlowInput in, SampleGeometry geometry, const float* grad_output,
                                           const float* image, MapGradient grad_maps) {
  const std::int64_t entry = static_cast<std::int64_t>(geometry.channels) * geometry.volume;
  CINNABAR_SHARED(unsigned, slots, CellSlots<D>::kWords);
  visit_points_back<D>(in, slots, grad_maps,
                       [&](const BlockField<D>& field, CellGain<D>& gain, std::int64_t n, unsigned p) {
                         if (p >= in.count) return;
                         const auto seed = [&](const float* end, float* adjoint) {
                           coordinate_gradient(locate_end<D>(geometry, end), geometry,
                                               grad_output + n * entry + p, image + n * entry, adjoint);
#pragma unroll
                           for (int a = 0; a < D; ++a)
                             adjoint[a] = 2.0f * adjoint[a] / static_cast<float>(in.grid.boxes[a]);
                         };
                         float point[D];
                         float adjoint[D];
                         voxel_point<D>(geometry, p, point);
                         auto walk = make_walk<D, kSteps>(in.steps);
                         cpab_walk_back<float, D>(walk, field, point, seed, adjoint, gain);
                       });
}

void forward(const Tensor& image, const Tensor& maps, const CpabGrid& grid, const GridSampleOptions& sampling,
             const CpabOptions& flow, Tensor& output) {
  const GridSampleShape shape = cpab_sample_shape(image, maps, grid, flow, output);
  const SampleGeometry geometry = sample_geometry(kOp, shape, sampling, image);
  if (output.numel() == 0) return;
  FlowInput in = flow_input(kOp, maps, grid, flow, shape.points);
  const Tensor records = prepare_records(kOp, in, maps.device());
  dispatch_dims(grid.dims, [&](auto dims) {
    constexpr int D = decltype(dims)::value;
    launch(
        kOp,
        in.steps > 0 ? cpab_sample_forward_voxel_kernel<D, true> : cpab_sample_forward_voxel_kernel<D, false>,
        shape_of_flow(in), image.device(), in, geometry, image.data<float>(), output.data<float>());
  });
}

template <int D>
void backward_image(const Tensor& grad_output, const FlowInput& in, const SampleGeometry& geometry,
                    Tensor& grad_image) {
  const Tensor peak = find_peak(kOp, grad_output);
  Tensor sums = Tensor::zeros(grad_image.shape(), DType::i64, grad_image.device());
  const FixedPointScale scale{fixed_point_bits(geometry.points),
                              reinterpret_cast<const unsigned*>(peak.data<std::int32_t>())};
  launch(kOp,
         in.steps > 0 ? cpab_sample_backward_image_voxel_kernel<D, true>
                      : cpab_sample_backward_image_voxel_kernel<D, false>,
         shape_of_flow(in), grad_image.device(), in, geometry, grad_output.data<float>(), scale,
         reinterpret_cast<long long*>(sums.data<std::int64_t>()));
  fixed_point_to_float(kOp, sums, scale, grad_image);
}

void backward(const Tensor& grad_output, const Tensor& image, const Tensor& maps, const CpabGrid& grid,
              const GridSampleOptions& sampling, const CpabOptions& flow, Tensor& grad_image,
              Tensor& grad_maps) {
  const GridSampleShape shape = cpab_sample_shape(image, maps, grid, flow, grad_output);
  cpab_sample_check_gradients(image, maps, grad_image, grad_maps);
  const SampleGeometry geometry = sample_geometry(kOp, shape, sampling, image);
  const bool flows = grad_output.numel() > 0 && !geometry.nearest;
  if (grad_maps.defined() && !flows) grad_maps.fill(0.0);
  if (grad_output.numel() == 0) return;
  FlowInput in = flow_input(kOp, maps, grid, flow, shape.points);
  const Tensor records = prepare_records(kOp, in, maps.device());
  dispatch_dims(grid.dims, [&](auto dims) {
    constexpr int D = decltype(dims)::value;
    if (grad_image.defined()) backward_image<D>(grad_output, in, geometry, grad_image);
    if (!grad_maps.defined() || !flows) return;
    const auto sweep = [&](const MapGradient& target) {
      launch(kOp,
             in.steps > 0 ? cpab_sample_backward_maps_voxel_kernel<D, true>
                          : cpab_sample_backward_maps_voxel_kernel<D, false>,
             shape_of_sweep(in, target), maps.device(), in, geometry, grad_output.data<float>(),
             image.data<float>(), target);
    };
    sum_map_gradient<D>(kOp, in, sweep, grad_maps);
  });
}

}  // namespace

extern const CpabSample cpab_sample;
const CpabSample cpab_sample{forward, backward};

}  // namespace cinnabar::cuda
