// Work split: one thread per sampled point, 256 per block, blockIdx.y walks the batch; a thread locates its
//   point once and loops over the channels. 2-D and 3-D are one template over the number of axes.
// Shared memory: none. Neighbouring points of a smooth grid read the same sectors, which L1 serves.
// backward_input: fixed-point adds (fixed_point.cuh), so it is deterministic; lanes pass terms on by shuffle
//   (sample_point.cuh).
// Limiting resource: memory, 20 bytes per point for one channel in 3-D; backward_input the L2 atomics.
// Offsets inside one channel are 32-bit (volumes below 2^31 voxels), everything else 64-bit.

#include "kernels/grid_sample.hpp"

#include "kernels/cuda/sample_point.cuh"

namespace cinnabar::cuda {
namespace {

constexpr int kBlock = 256;
constexpr const char* kOp = "grid_sample";

// budget: <=64 registers, 0 B shared, 256 threads, occupancy >= 0.5
template <int Dims>
__global__ void __launch_bounds__(kBlock, 4)
    grid_sample_forward_point_kernel(const float* input, const float* grid, SampleGeometry geometry,
                                     float* output) {
  const std::int64_t p = thread_index();
  if (p >= geometry.points) return;
  for (std::int64_t n = blockIdx.y; n < geometry.batch; n += gridDim.y) {
    const PointCell<Dims> point = locate_sample<Dims>(grid + (n * geometry.points + p) * Dims, geometry);
    sample_channels(point, geometry, input + n * geometry.channels * geometry.volume,
                    output + n * geometry.channels * geometry.points + p);
  }
}

// budget: <=64 registers, 0 B shared, 256 threads, occupancy >= 0.5
template <int Dims>
__global__ void __launch_bounds__(kBlock, 4)
    grid_sample_backward_input_point_kernel(const float* grad_output, const float* grid,
                                            SampleGeometry geometry, FixedPointScale scale, long long* sums) {
  const unsigned peak_bits = *scale.peak;
  if (!peak_is_finite(peak_bits)) return;
  const float factor = fixed_point_factor(scale, peak_bits);
  const std::int64_t p = thread_index();
  const bool active = p < geometry.points;
  for (std::int64_t n = blockIdx.y; n < geometry.batch; n += gridDim.y) {
    PointCell<Dims> point{};
    if (active) point = locate_sample<Dims>(grid + (n * geometry.points + p) * Dims, geometry);
    scatter_channels(point, geometry, active, grad_output + n * geometry.channels * geometry.points + p,
                     factor, sums + n * geometry.channels * geometry.volume);
  }
}

// budget: <=64 registers, 0 B shared, 256 threads, occupancy >= 0.5
template <int Dims>
__global__ void __launch_bounds__(kBlock, 4)
    grid_sample_backward_grid_point_kernel(const float* grad_output, const float* input, const float* grid,
                                           SampleGeometry geometry, float* grad_grid) {
  const std::int64_t p = thread_index();
  if (p >= geometry.points) return;
  for (std::int64_t n = blockIdx.y; n < geometry.batch; n += gridDim.y) {
    const std::int64_t at = (n * geometry.points + p) * Dims;
    coordinate_gradient(locate_sample<Dims>(grid + at, geometry), geometry,
                        grad_output + n * geometry.channels * geometry.points + p,
                        input + n * geometry.channels * geometry.volume, grad_grid + at);
  }
}

LaunchShape shape_of_launch(const SampleGeometry& geometry) {
  return cover_rows(geometry.points, geometry.batch, kBlock);
}

bool is_empty(const SampleGeometry& geometry) {
  return geometry.points == 0 || geometry.batch == 0;
}

void forward(const Tensor& input, const Tensor& grid, const GridSampleOptions& options, Tensor& output) {
  const GridSampleShape shape = grid_sample_shape(input, grid, output);
  const SampleGeometry geometry = sample_geometry(kOp, shape, options, input);
  if (is_empty(geometry)) return;
  launch(kOp, shape.dims == 2 ? grid_sample_forward_point_kernel<2> : grid_sample_forward_point_kernel<3>,
         shape_of_launch(geometry), input.device(), input.data<float>(), grid.data<float>(), geometry,
         output.data<float>());
}

void backward_input(const Tensor& grad_output, const Tensor& grid, const GridSampleOptions& options,
                    Tensor& grad_input) {
  const GridSampleShape shape = grid_sample_shape(grad_input, grid, grad_output);
  const SampleGeometry geometry = sample_geometry(kOp, shape, options, grid);
  if (grad_input.numel() == 0) return;
  if (is_empty(geometry)) return grad_input.fill(0.0);
  const Tensor peak = find_peak(kOp, grad_output);
  Tensor sums = Tensor::zeros(grad_input.shape(), DType::i64, grad_input.device());
  const FixedPointScale scale{fixed_point_bits(geometry.points),
                              reinterpret_cast<const unsigned*>(peak.data<std::int32_t>())};
  launch(kOp,
         shape.dims == 2 ? grid_sample_backward_input_point_kernel<2>
                         : grid_sample_backward_input_point_kernel<3>,
         shape_of_launch(geometry), grid.device(), grad_output.data<float>(), grid.data<float>(), geometry,
         scale, reinterpret_cast<long long*>(sums.data<std::int64_t>()));
  fixed_point_to_float(kOp, sums, scale, grad_input);
}

void backward_grid(const Tensor& grad_output, const Tensor& input, const Tensor& grid,
                   const GridSampleOptions& options, Tensor& grad_grid) {
  const GridSampleShape shape = grid_sample_shape(input, grid, grad_output);
  const SampleGeometry geometry = sample_geometry(kOp, shape, options, input);
  require_same_shape(kOp, grad_grid, grid);
  require_dtype(kOp, grad_grid, DType::f32);
  require_same_device(kOp, grad_grid, grid);
  if (is_empty(geometry)) return;
  if (geometry.nearest) return grad_grid.fill(0.0);
  launch(
      kOp,
      shape.dims == 2 ? grid_sample_backward_grid_point_kernel<2> : grid_sample_backward_grid_point_kernel<3>,
      shape_of_launch(geometry), input.device(), grad_output.data<float>(), input.data<float>(),
      grid.data<float>(), geometry, grad_grid.data<float>());
}

}  // namespace

extern const GridSample grid_sample;
const GridSample grid_sample{forward, backward_input, backward_grid};

}  // namespace cinnabar::cuda
