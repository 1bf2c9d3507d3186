// Work split: a tiny kernel computes the sources of every output index of the three axes in float64 (one
// thread
//   per index, 16 bytes each), so the main kernels do no coordinate arithmetic and share the CPU's weights
//   bit for bit. forward: one thread per output voxel, 8 loads. backward: one thread per input voxel gathers
//   the outputs that read it (27 to 64 for a factor of 2), without atomics.
// Shared memory: none; the tables and the re-read neighbours stay in L1. Launch: 256 threads, blockIdx.y
// walks
//   batch times channels.
// Limiting resource: memory in forward (4 bytes written per output voxel), L1 loads in backward.

#include "kernels/upsample.hpp"

#include "kernels/cuda/launch.cuh"

namespace cinnabar::cuda {
namespace {

constexpr int kBlock = 256;
constexpr const char* kOp = "upsample";

struct SourceEntry {
  std::int32_t low;
  std::int32_t high;
  float weight;  // of the higher one
};

struct ResizeGeometry {
  ResizeAxis axis[3];
  std::int32_t in_volume;
  std::int32_t out_volume;
  std::int64_t images;  // batch times channels
};

/// Sources of x, then y, then z.
// budget: <=32 registers, 0 B shared, 128 threads, occupancy >= 1.0
__global__ void upsample_source_index_kernel(ResizeGeometry geometry, SourceEntry* sources) {
  std::int32_t i = static_cast<std::int32_t>(thread_index());
#pragma unroll
  for (int axis = 0; axis < 3; ++axis) {
    if (i < geometry.axis[axis].out) {
      const ResizeSource source = resize_source(geometry.axis[axis], i);
      sources[i] = {source.low, source.high, static_cast<float>(source.weight)};
      return;
    }
    sources += geometry.axis[axis].out;
    i -= geometry.axis[axis].out;
  }
}

// budget: <=56 registers, 0 B shared, 256 threads, occupancy >= 0.75
__global__ void __launch_bounds__(kBlock)
    upsample_forward_voxel_kernel(const float* input, const SourceEntry* sources, ResizeGeometry geometry,
                                  float* output) {
  const std::int64_t index = thread_index();
  if (index >= geometry.out_volume) return;
  auto rest = static_cast<unsigned>(index);
  const auto out_x = static_cast<unsigned>(geometry.axis[0].out);
  const auto out_y = static_cast<unsigned>(geometry.axis[1].out);
  const SourceEntry x = sources[rest % out_x];
  rest /= out_x;
  const SourceEntry y = sources[out_x + rest % out_y];
  const SourceEntry z = sources[out_x + out_y + rest / out_y];
  const int width = geometry.axis[0].in;
  const int height = geometry.axis[1].in;
  const int r00 = (z.low * height + y.low) * width;
  const int r01 = (z.low * height + y.high) * width;
  const int r10 = (z.high * height + y.low) * width;
  const int r11 = (z.high * height + y.high) * width;
  for (std::int64_t image = blockIdx.y; image < geometry.images; image += gridDim.y) {
    const float* in = input + image * geometry.in_volume;
    float value = in[r00 + x.low];
    if (!geometry.axis[0].nearest) {
      const auto blend_y_z = [&](int column) {
        const float below = (1.0f - y.weight) * in[r00 + column] + y.weight * in[r01 + column];
        const float above = (1.0f - y.weight) * in[r10 + column] + y.weight * in[r11 + column];
        return (1.0f - z.weight) * below + z.weight * above;
      };
      value = (1.0f - x.weight) * blend_y_z(x.low) + x.weight * blend_y_z(x.high);
    }
    output[image * geometry.out_volume + index] = value;
  }
}

// budget: <=64 registers, 0 B shared, 256 threads, occupancy >= 0.625
__global__ void __launch_bounds__(kBlock)
    upsample_backward_voxel_kernel(const float* grad_output, const SourceEntry* sources,
                                   ResizeGeometry geometry, float* grad_input) {
  const std::int64_t index = thread_index();
  if (index >= geometry.in_volume) return;
  auto rest = static_cast<unsigned>(index);
  int voxel[3];
  ResizeTargets range[3];
#pragma unroll
  for (int axis = 0; axis < 3; ++axis) {
    const auto size = static_cast<unsigned>(geometry.axis[axis].in);
    voxel[axis] = static_cast<int>(rest % size);
    rest /= size;
    range[axis] = resize_targets(geometry.axis[axis], voxel[axis]);
  }
  const int width = geometry.axis[0].out;
  const int height = geometry.axis[1].out;
  const auto weight_of = [&](const SourceEntry& source, int axis) {
    return resize_weight(source.low, source.high, source.weight, voxel[axis]);
  };
  for (std::int64_t image = blockIdx.y; image < geometry.images; image += gridDim.y) {
    const float* grad = grad_output + image * geometry.out_volume;
    float sum = 0.0f;
    for (int z = range[2].first; z <= range[2].last; ++z) {
      const float wz = weight_of(sources[width + height + z], 2);
      if (wz == 0.0f) continue;
      float sum_z = 0.0f;
      for (int y = range[1].first; y <= range[1].last; ++y) {
        const float wy = weight_of(sources[width + y], 1);
        if (wy == 0.0f) continue;
        const float* row = grad + (z * height + y) * width;
        float sum_y = 0.0f;
        for (int x = range[0].first; x <= range[0].last; ++x) sum_y += weight_of(sources[x], 0) * row[x];
        sum_z += wy * sum_y;
      }
      sum += wz * sum_z;
    }
    grad_input[image * geometry.in_volume + index] = sum;
  }
}

ResizeGeometry geometry_of(const Tensor& input, const Tensor& output, const std::array<ResizeAxis, 3>& axes) {
  require_dtype(kOp, input, DType::f32);
  std::int64_t in_volume = 1;
  std::int64_t out_volume = 1;
  ResizeGeometry geometry{};
  for (std::size_t axis = 0; axis < 3; ++axis) {
    geometry.axis[axis] = axes[axis];
    in_volume *= axes[axis].in;
    out_volume *= axes[axis].out;
  }
  constexpr std::int64_t kLargest = std::numeric_limits<std::int32_t>::max();
  CINNABAR_CHECK(in_volume <= kLargest && out_volume <= kLargest, kOp,
                 "one channel must be below 2^31 voxels, got ", input, " and ", output);
  geometry.in_volume = static_cast<std::int32_t>(in_volume);
  geometry.out_volume = static_cast<std::int32_t>(out_volume);
  geometry.images = input.shape(0) * input.shape(1);
  return geometry;
}

Tensor source_table(const ResizeGeometry& geometry, Device device) {
  const std::int64_t entries =
      std::int64_t{geometry.axis[0].out} + geometry.axis[1].out + geometry.axis[2].out;
  Tensor table = Tensor::empty({entries * static_cast<std::int64_t>(sizeof(SourceEntry))}, DType::u8, device);
  launch(kOp, upsample_source_index_kernel, cover(entries, 128), device, geometry,
         static_cast<SourceEntry*>(table.raw()));
  return table;
}

void forward(const Tensor& input, const UpsampleOptions& options, Tensor& output) {
  const ResizeGeometry geometry = geometry_of(input, output, resize_axes(input, output, options));
  if (output.numel() == 0) return;
  const Tensor table = source_table(geometry, input.device());
  launch(kOp, upsample_forward_voxel_kernel, cover_rows(geometry.out_volume, geometry.images, kBlock),
         input.device(), input.data<float>(), static_cast<const SourceEntry*>(table.raw()), geometry,
         output.data<float>());
}

void backward(const Tensor& grad_output, const UpsampleOptions& options, Tensor& grad_input) {
  const ResizeGeometry geometry =
      geometry_of(grad_input, grad_output, resize_axes(grad_input, grad_output, options));
  if (grad_input.numel() == 0) return;
  const Tensor table = source_table(geometry, grad_input.device());
  launch(kOp, upsample_backward_voxel_kernel, cover_rows(geometry.in_volume, geometry.images, kBlock),
         grad_input.device(), grad_output.data<float>(), static_cast<const SourceEntry*>(table.raw()),
         geometry, grad_input.data<float>());
}

}  // namespace

extern const Upsample upsample;
const Upsample upsample{forward, backward};

}  // namespace cinnabar::cuda
