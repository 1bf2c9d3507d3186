#pragma once

// The launches of conv3d as products of tiles, whatever multiplies the tiles.

#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/cuda/conv3d_gather.cuh"
#include "kernels/cuda/conv3d_weight.cuh"

namespace cinnabar::cuda {
namespace {

/// Kernels of one way to multiply, and the shape of what their blocks own.
struct TileKernels {
  std::int64_t rows;   ///< of a tile; its columns are kColumns
  std::int64_t depth;  ///< of a stage
  void (*gather)(const float* source, const float* packed, EpilogueMath<float> epilogue, Gather gather,
                 float* target);
  void (*backward_weight)(const float* grad_output, const float* input, WeightSums s, float* partial);
};

/// Those for so many rows, which are channels written.
using TilesForRows = TileKernels (*)(std::int64_t rows);

constexpr const char* kOp = "conv3d";
constexpr std::int64_t kWantedBlocks = 512;
constexpr std::int64_t kLeastPositions = 256;  // a range of backward_weight should have

std::int32_t narrow(std::int64_t value) {
  CINNABAR_CHECK(value <= std::numeric_limits<std::int32_t>::max(), kOp, value,
                 " voxels of a group of channels or positions are too many for CUDA");
  return static_cast<std::int32_t>(value);
}

void check(const Tensor& image, const Conv3dShape& s) {
  require_dtype(kOp, image, DType::f32);
  CINNABAR_CHECK(s.groups <= 65535, kOp, s.groups, " groups are too many for CUDA");
  narrow(s.in_channels * s.in_volume());
  narrow(s.out_channels * s.out_volume());
  narrow(s.out_channels * s.depth());
}

GatherAxis forward_axis(const Conv3dAxis& a) {
  return {a.out, 0, 1, a.out, -a.padding, a.stride, a.dilation, a.in, a.kernel, 0, 1, a.kernel};
}

/// The input voxels whose index leaves `residue` when divided by the stride. Tap k of voxel i reads output
/// (i + padding - k dilation) / stride, where that is whole.
GatherAxis backward_axis(const Conv3dAxis& a, std::int32_t residue) {
  GatherAxis axis{};
  axis.positions = residue < a.in ? (a.in - residue - 1) / a.stride + 1 : 0;
  axis.target_first = residue;
  axis.target_step = a.stride;
  axis.target_extent = a.in;
  axis.source_step = 1;
  axis.source_extent = a.out;
  axis.kernel = a.kernel;
  axis.tap_step = a.stride / std::gcd(a.stride, a.dilation);
  axis.source_tap = -(axis.tap_step * a.dilation / a.stride);
  for (std::int32_t k = 0; k < axis.tap_step && k < a.kernel; ++k) {
    const std::int32_t whole = residue + a.padding - k * a.dilation;
    if (whole % a.stride != 0) continue;
    axis.tap_first = k;
    axis.taps = (a.kernel - k - 1) / axis.tap_step + 1;
    axis.source_first = whole / a.stride;
  }
  return axis;
}

/// Weights as the gather kernel reads them. Forward writes output channels; backward_input input channels.
Tensor pack_weight(const Tensor& weight, const Conv3dShape& s, bool forward, const TileKernels& tiles) {
  const std::int64_t rows = forward ? s.out_channels : s.in_channels;
  const std::int64_t channels = forward ? s.in_channels : s.out_channels;
  const std::int64_t padded = (rows + tiles.rows - 1) / tiles.rows * tiles.rows;
  Tensor packed = Tensor::empty({s.groups, s.taps(), channels, padded}, DType::f32, weight.device());
  launch(kOp, conv3d_pack_weight_kernel, cover(packed.numel()), weight.device(), weight.data<float>(),
         narrow(s.taps()), narrow(channels), narrow(rows), narrow(padded), forward ? s.taps() : s.depth(),
         forward ? s.depth() : s.taps(), packed.numel(), packed.data<float>());
  return packed;
}

void run_gather(const TileKernels& tiles, const Tensor& source, const Tensor& packed,
                const Epilogue& epilogue, Gather gather, std::int64_t batch, Tensor& target) {
  std::int64_t columns = batch;
  for (const GatherAxis& axis : gather.axis) columns *= axis.positions;
  if (columns == 0) return;
  gather.columns = narrow(columns);
  gather.padded_rows = narrow(packed.shape(-1));
  const LaunchShape shape{
      dim3(static_cast<unsigned>((columns + kColumns - 1) / kColumns),
           static_cast<unsigned>(packed.shape(-1) / tiles.rows), static_cast<unsigned>(gather.groups)),
      dim3(kThreads)};
  launch(kOp, tiles.gather, shape, target.device(), source.data<float>(), packed.data<float>(),
         epilogue_math<float>(epilogue), gather, target.data<float>());
}

/// What forward gathers from the input, but for the number of columns.
Gather forward_gather(const Conv3dShape& s) {
  Gather gather{};
  for (int axis = 0; axis < 3; ++axis) gather.axis[axis] = forward_axis(s.axis[axis]);
  gather.channels = narrow(s.in_channels);
  gather.rows = narrow(s.out_channels);
  gather.groups = narrow(s.groups);
  gather.source_volume = narrow(s.in_volume());
  gather.target_volume = narrow(s.out_volume());
  return gather;
}

/// What backward_input gathers from the output's gradients: once for every residue of an input voxel's index.
std::vector<Gather> backward_gathers(const Conv3dShape& s) {
  Gather gather{};
  gather.channels = narrow(s.out_channels);
  gather.rows = narrow(s.in_channels);
  gather.groups = narrow(s.groups);
  gather.source_volume = narrow(s.out_volume());
  gather.target_volume = narrow(s.in_volume());
  std::vector<Gather> gathers;
  for (std::int32_t z = 0; z < s.axis[0].stride; ++z) {
    gather.axis[0] = backward_axis(s.axis[0], z);
    for (std::int32_t y = 0; y < s.axis[1].stride; ++y) {
      gather.axis[1] = backward_axis(s.axis[1], y);
      for (std::int32_t x = 0; x < s.axis[2].stride; ++x) {
        gather.axis[2] = backward_axis(s.axis[2], x);
        gathers.push_back(gather);
      }
    }
  }
  return gathers;
}

void tiled_forward(TilesForRows tiles_for, const Tensor& input, const Tensor& weight,
                   const Epilogue& epilogue, const Conv3dOptions& options, Tensor& output) {
  const Conv3dShape s = conv3d_shape(input, weight, output, options);
  check_epilogue(epilogue, output);
  check(input, s);
  if (output.numel() == 0) return;
  const TileKernels tiles = tiles_for(s.out_channels);
  run_gather(tiles, input, pack_weight(weight, s, true, tiles), epilogue, forward_gather(s), s.batch, output);
}

void tiled_backward_input(TilesForRows tiles_for, const Tensor& grad_output, const Tensor& weight,
                          const Epilogue& epilogue, const Conv3dOptions& options, Tensor& grad_input) {
  const Conv3dShape s = conv3d_shape(grad_input, weight, grad_output, options);
  check_epilogue(epilogue, grad_input);
  check(grad_input, s);
  if (grad_input.numel() == 0) return;
  const TileKernels tiles = tiles_for(s.in_channels);
  const Tensor packed = pack_weight(weight, s, false, tiles);
  for (const Gather& gather : backward_gathers(s)) {
    run_gather(tiles, grad_output, packed, epilogue, gather, s.batch, grad_input);
  }
}

/// Adds up the sums of the parts, in order.
void sum_parts(const Tensor& partial, std::int64_t parts, Tensor& grad_weight) {
  launch(kOp, conv3d_sum_parts_weight_kernel, cover(grad_weight.numel()), grad_weight.device(),
         partial.data<float>(), narrow(parts), grad_weight.numel(), grad_weight.data<float>());
}

void tiled_backward_weight(TilesForRows tiles_for, const Tensor& grad_output, const Tensor& input,
                           const Conv3dOptions& options, Tensor& grad_weight) {
  const Conv3dShape shape = conv3d_shape(input, grad_weight, grad_output, options);
  check(input, shape);
  if (shape.batch == 0) return grad_weight.fill(0.0);
  WeightSums s{};
  for (int axis = 0; axis < 3; ++axis) s.axis[axis] = shape.axis[axis];
  s.channels = narrow(shape.in_channels);
  s.rows = narrow(shape.out_channels);
  s.groups = narrow(shape.groups);
  s.columns = narrow(shape.depth());
  s.in_volume = narrow(shape.in_volume());
  s.out_volume = narrow(shape.out_volume());
  const TileKernels tiles = tiles_for(s.rows);
  const std::int64_t positions = shape.batch * shape.out_volume();
  narrow(positions + kWantedBlocks * tiles.depth);  // ranges may end this far beyond
  s.positions = narrow(positions);
  // Ranges follow from the shapes alone, so the order of the sums is the same on every GPU.
  const std::int64_t across = (s.columns + kColumns - 1) / kColumns;
  const std::int64_t down = (s.rows + tiles.rows - 1) / tiles.rows;
  std::int64_t parts = kWantedBlocks / (across * down * s.groups);
  parts = std::max<std::int64_t>(1, std::min(parts, positions / kLeastPositions));
  s.range = narrow(((positions + parts - 1) / parts + tiles.depth - 1) / tiles.depth * tiles.depth);
  parts = (positions + s.range - 1) / s.range;
  Tensor partial = grad_weight;
  if (parts > 1) partial = Tensor::empty({parts, grad_weight.numel()}, DType::f32, input.device());
  const LaunchShape launched{dim3(static_cast<unsigned>(across), static_cast<unsigned>(down),
                                  static_cast<unsigned>(parts * s.groups)),
                             dim3(kThreads)};
  launch(kOp, tiles.backward_weight, launched, input.device(), grad_output.data<float>(), input.data<float>(),
         s, partial.data<float>());
  if (parts > 1) sum_parts(partial, parts, grad_weight);
}

}  // namespace
}  // namespace cinnabar::cuda
