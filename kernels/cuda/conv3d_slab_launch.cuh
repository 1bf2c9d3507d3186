#pragma once

// The launches of conv3d_slab.cuh, where a convolution suits it.

#include <optional>

#include "engine/divide_up.hpp"
#include "kernels/cuda/conv3d_launch.cuh"
#include "kernels/cuda/conv3d_slab.cuh"

namespace cinnabar::cuda {
namespace {

constexpr std::int64_t kWantedWeightBlocks = 528;  // four for each of the 132 multiprocessors of an H200
constexpr std::int32_t kLeastChannels = 4;         // read; fewer leave most of the depth of a product empty
constexpr std::int64_t kLeastRange = 512;  // positions of a unit of the weight gradient, if there are so many

/// The taps of a gather, where so many positions in a row reach at most `room` voxels.
std::optional<SlabTaps> slab_taps(const Gather& gather, std::int64_t positions, std::int64_t room) {
  const auto& [depth, height, width] = gather.axis;
  if (gather.channels < kLeastChannels) return std::nullopt;
  for (const GatherAxis& axis : gather.axis) {
    if (axis.source_step != 1) return std::nullopt;
  }
  // Else later positions could begin to read before earlier ones.
  if (height.positions > height.source_extent || width.positions > width.source_extent + 1)
    return std::nullopt;
  SlabTaps taps{};
  if (std::int64_t{depth.taps} * height.taps * width.taps > kMostTaps) return std::nullopt;
  const std::int64_t row = width.source_extent, plane = row * height.source_extent;
  for (std::int32_t i = 0; i < depth.taps; ++i) {
    for (std::int32_t j = 0; j < height.taps; ++j) {
      for (std::int32_t k = 0; k < width.taps; ++k, ++taps.count) {
        const std::int64_t distance =
            i * depth.source_tap * plane + j * height.source_tap * row + k * width.source_tap;
        taps.distance[taps.count] = narrow(distance);
        taps.least = std::min(taps.least, narrow(distance));
        taps.most = std::max(taps.most, narrow(distance));
        taps.kernel_tap[taps.count] = ((depth.tap_first + i * depth.tap_step) * height.kernel +
                                       height.tap_first + j * height.tap_step) *
                                          width.kernel +
                                      width.tap_first + k * width.tap_step;
      }
    }
  }
  // Steps from a position to the next are 1, but longer at the ends of rows and planes.
  const std::int64_t rows = (positions - 1) / std::max(1, width.positions) + 1;
  const std::int64_t planes = (rows - 1) / std::max(1, height.positions) + 1;
  const std::int64_t walked = positions + rows * std::max<std::int64_t>(0, row - width.positions) +
                              planes * (height.source_extent - height.positions) * row;
  const std::int64_t reach = walked + taps.most - taps.least;
  if (std::min<std::int64_t>(reach, gather.source_volume) > room) return std::nullopt;
  return taps;
}

using SlabKernel = void (*)(const float* source, const std::uint32_t* packed, EpilogueMath<float> epilogue,
                            Gather gather, SlabTaps taps, std::int32_t positions, std::int32_t kernel_taps,
                            float* target);

/// Rows of a tile: the lowest one that holds all, or the highest there is.
constexpr std::int64_t slab_rows(std::int64_t rows) {
  return rows <= 16 ? 16 : rows <= 32 ? 32 : 64;
}

template <class Operand>
SlabKernel slab_kernel(std::int64_t tile_rows) {
  if (tile_rows == 16) return conv3d_slab_mma_kernel<Operand, 16>;
  if (tile_rows == 32) return conv3d_slab_mma_kernel<Operand, 32>;
  return conv3d_slab_mma_kernel<Operand, 64>;
}

/// Weights as fragments, channels and rows padded with zeros.
template <class Operand>
Tensor pack_fragments(const Tensor& weight, const Conv3dShape& s, bool forward, std::int64_t padded_rows) {
  const std::int64_t rows = forward ? s.out_channels : s.in_channels;
  const std::int64_t channels = forward ? s.in_channels : s.out_channels;
  const std::int64_t chunks = divide_up(channels, kSlabWords * kInWord<Operand>);
  const std::int64_t row_tiles = padded_rows / kMmaRows;
  Tensor packed = Tensor::empty({s.groups * row_tiles, chunks, s.taps(), 32, 4}, DType::i32, weight.device());
  launch(kOp, conv3d_pack_fragment_kernel<Operand>, cover(packed.numel()), weight.device(),
         weight.data<float>(), narrow(s.taps()), narrow(channels), narrow(chunks), narrow(rows),
         narrow(row_tiles), forward ? s.taps() : s.depth(), forward ? s.depth() : s.taps(), packed.numel(),
         reinterpret_cast<std::uint32_t*>(packed.data<std::int32_t>()));
  return packed;
}

/// Runs all gathers of a pass. False, with nothing done, where one of them does not suit the slab.
template <class Operand>
bool slab_gathers(const std::vector<Gather>& gathers, const Tensor& source, const Tensor& weight,
                  const Conv3dShape& s, bool forward, const Epilogue& epilogue, Tensor& target) {
  std::vector<SlabTaps> taps;
  for (const Gather& gather : gathers) {
    const std::optional<SlabTaps> found = slab_taps(gather, kColumns, kSlabPositions);
    if (!found) return false;
    taps.push_back(*found);
  }
  const std::int64_t tile_rows = slab_rows(gathers.front().rows);
  const std::int64_t padded_rows = divide_up(gathers.front().rows, tile_rows) * tile_rows;
  const Tensor packed = pack_fragments<Operand>(weight, s, forward, padded_rows);
  for (std::size_t i = 0; i < gathers.size(); ++i) {
    Gather gather = gathers[i];
    std::int64_t positions = 1;
    for (const GatherAxis& axis : gather.axis) positions *= axis.positions;
    if (positions == 0) continue;
    gather.padded_rows = narrow(padded_rows);
    gather.columns = narrow(positions);
    const LaunchShape shape{
        dim3(static_cast<unsigned>(s.batch * divide_up(positions, kColumns)),
             static_cast<unsigned>(padded_rows / tile_rows), static_cast<unsigned>(gather.groups)),
        dim3(kThreads)};
    launch(kOp, slab_kernel<Operand>(tile_rows), shape, target.device(), source.data<float>(),
           reinterpret_cast<const std::uint32_t*>(packed.data<std::int32_t>()),
           epilogue_math<float>(epilogue), gather, taps[i], narrow(positions), narrow(s.taps()),
           target.data<float>());
  }
  return true;
}

template <class Operand>
bool slab_forward(const Tensor& input, const Tensor& weight, const Epilogue& epilogue,
                  const Conv3dOptions& options, Tensor& output) {
  const Conv3dShape s = conv3d_shape(input, weight, output, options);
  check_epilogue(epilogue, output);
  check(input, s);
  if (output.numel() == 0) return true;
  return slab_gathers<Operand>({forward_gather(s)}, input, weight, s, true, epilogue, output);
}

template <class Operand>
bool slab_backward_input(const Tensor& grad_output, const Tensor& weight, const Epilogue& epilogue,
                         const Conv3dOptions& options, Tensor& grad_input) {
  const Conv3dShape s = conv3d_shape(grad_input, weight, grad_output, options);
  check_epilogue(epilogue, grad_input);
  check(grad_input, s);
  if (grad_input.numel() == 0) return true;
  return slab_gathers<Operand>(backward_gathers(s), grad_output, weight, s, false, epilogue, grad_input);
}

template <class Operand>
bool slab_backward_weight(const Tensor& grad_output, const Tensor& input, const Conv3dOptions& options,
                          Tensor& grad_weight) {
  const Conv3dShape s = conv3d_shape(input, grad_weight, grad_output, options);
  check(input, s);
  Gather gather = forward_gather(s);
  const std::optional<SlabTaps> taps = slab_taps(gather, kWeightStep, kRing);
  const std::int64_t positions = s.out_volume();
  if (!taps || taps->most - taps->least >= kRing || s.batch * positions == 0) return false;
  gather.columns = narrow(positions);
  const std::int64_t tile_rows = slab_rows(s.out_channels);
  const std::int64_t across = divide_up(s.in_channels, kWeightChannels),
                     down = divide_up(s.out_channels, tile_rows);
  // Parts follow from the shapes alone, so the order of the sums is the same on every GPU.
  const std::int64_t wanted = std::max<std::int64_t>(1, kWantedWeightBlocks / (across * down * s.groups));
  const std::int64_t least = std::max<std::int64_t>(kLeastRange, taps->most - taps->least);
  const std::int64_t range = std::max(least, divide_up(positions, divide_up(wanted, s.batch)));
  SlabParts parts{};
  parts.positions = narrow(positions);
  parts.range = narrow(divide_up(range, kWeightStep) * kWeightStep);
  parts.units_of_image = narrow(divide_up(positions, parts.range));
  parts.units = narrow(s.batch * parts.units_of_image);
  parts.units_of_part = narrow(divide_up(parts.units, std::min<std::int64_t>(wanted, parts.units)));
  const std::int64_t count = divide_up(parts.units, parts.units_of_part);
  Tensor partial = grad_weight;
  if (count > 1) partial = Tensor::empty({count, grad_weight.numel()}, DType::f32, input.device());
  const LaunchShape shape{dim3(static_cast<unsigned>(across), static_cast<unsigned>(down),
                               static_cast<unsigned>(count * s.groups)),
                          dim3(kWeightThreads)};
  const auto kernel = tile_rows == 16   ? conv3d_slab_weight_mma_kernel<Operand, 16>
                      : tile_rows == 32 ? conv3d_slab_weight_mma_kernel<Operand, 32>
                                        : conv3d_slab_weight_mma_kernel<Operand, 64>;
  launch(kOp, kernel, shape, input.device(), grad_output.data<float>(), input.data<float>(), gather, *taps,
         parts, narrow(s.taps()), partial.data<float>());
  if (count > 1) sum_parts(partial, count, grad_weight);
  return true;
}

}  // namespace
}  // namespace cinnabar::cuda
