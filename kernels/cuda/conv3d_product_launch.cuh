#pragma once

// The launches of conv3d_product.cuh and conv3d_product_weight.cuh, where a convolution suits them.

#include <optional>

#include "engine/divide_up.hpp"
#include "kernels/cuda/conv3d_launch.cuh"
#include "kernels/cuda/conv3d_product_weight.cuh"

namespace cinnabar::cuda {
namespace {

constexpr std::int64_t kLeastChannels = 8;  // read; fewer leave most of a chunk empty
constexpr std::int64_t kMostHalo = 8;       // times as many voxels with the halo as without, beyond the first
constexpr std::int64_t kFreeHalo = 1 << 16;
constexpr std::int64_t kMultiprocessors = 132;  // of an H200
constexpr std::int64_t kLeastSummed = 1024;     // positions a part of the weight gradient should have

/// Channels written by a block: the fewest that hold all, or the most there are.
constexpr std::int64_t product_width(std::int64_t rows) {
  return rows <= 16 ? 16 : rows <= 32 ? 32 : rows <= 64 ? 64 : 128;
}

/// A source packed with what gathers may read around it; nothing where it does not suit.
template <class Operand>
std::optional<PackedVolume> packed_volume(const std::vector<Gather>& gathers, std::int64_t batch) {
  const Gather& any = gathers.front();
  if (any.channels < kLeastChannels) return std::nullopt;
  PackedVolume p{};
  std::int64_t voxels = batch;
  for (int axis = 0; axis < 3; ++axis) {
    std::int64_t low = 0, high = any.axis[axis].source_extent;
    for (const Gather& gather : gathers) {
      const GatherAxis& a = gather.axis[axis];
      if (a.positions == 0 || a.taps == 0) continue;
      const std::int64_t reach = std::int64_t{a.taps - 1} * a.source_tap;
      const std::int64_t last = a.source_first + std::int64_t{a.positions - 1} * a.source_step;
      low = std::min(low, a.source_first + std::min<std::int64_t>(0, reach));
      high = std::max(high, last + std::max<std::int64_t>(0, reach) + 1);
    }
    p.source[axis] = any.axis[axis].source_extent;
    p.before[axis] = narrow(-low);
    p.extent[axis] = narrow(high - low);
    voxels *= high - low;
    if (voxels > std::numeric_limits<std::int32_t>::max() / kChunkPieces) return std::nullopt;
  }
  if (voxels > kFreeHalo && voxels > kMostHalo * batch * any.source_volume) return std::nullopt;
  p.voxels = narrow(voxels);
  p.channels = any.channels;
  p.chunks = narrow(divide_up(any.channels, kChunkChannels<Operand>));
  p.groups = any.groups;
  return p;
}

template <class Operand>
Tensor pack_volume(const Tensor& source, const PackedVolume& p) {
  Tensor packed = Tensor::empty({p.groups, p.chunks, p.voxels, kChunkWords}, DType::i32, source.device());
  const LaunchShape shape{
      dim3(static_cast<unsigned>(divide_up(p.voxels, kPackVoxels)), static_cast<unsigned>(p.groups)),
      dim3(kPackThreads)};
  launch(kOp, conv3d_pack_volume_kernel<Operand>, shape, source.device(), source.data<float>(), p,
         reinterpret_cast<uint4*>(packed.data<std::int32_t>()));
  return packed;
}

/// Weights of a pass that reads `channels` and writes `rows` channels.
template <class Operand>
Tensor pack_taps(const Tensor& weight, const Conv3dShape& s, bool forward, std::int64_t padded_rows) {
  const std::int64_t rows = forward ? s.out_channels : s.in_channels;
  const std::int64_t channels = forward ? s.in_channels : s.out_channels;
  const std::int64_t chunks = divide_up(channels, kChunkChannels<Operand>);
  Tensor packed =
      Tensor::empty({s.groups, chunks, s.taps(), padded_rows, kChunkWords}, DType::i32, weight.device());
  launch(kOp, conv3d_pack_taps_kernel<Operand>, cover(packed.numel()), weight.device(), weight.data<float>(),
         narrow(s.taps()), narrow(channels), narrow(chunks), narrow(rows), narrow(padded_rows),
         forward ? s.taps() : s.depth(), forward ? s.depth() : s.taps(), packed.numel(),
         reinterpret_cast<std::uint32_t*>(packed.data<std::int32_t>()));
  return packed;
}

const uint4* pieces(const Tensor& packed) {
  return reinterpret_cast<const uint4*>(packed.data<std::int32_t>());
}

template <class Operand>
auto product_kernel(std::int64_t width) {
  return width == 16   ? conv3d_product_mma_kernel<Operand, 16>
         : width == 32 ? conv3d_product_mma_kernel<Operand, 32>
         : width == 64 ? conv3d_product_mma_kernel<Operand, 64>
                       : conv3d_product_mma_kernel<Operand, 128>;
}

template <class Operand>
auto weight_product_kernel(std::int64_t width) {
  return width == 16   ? conv3d_weight_product_mma_kernel<Operand, 16>
         : width == 32 ? conv3d_weight_product_mma_kernel<Operand, 32>
         : width == 64 ? conv3d_weight_product_mma_kernel<Operand, 64>
                       : conv3d_weight_product_mma_kernel<Operand, 128>;
}

/// Runs all gathers of a pass, some at a time. False, with nothing done, where they do not suit.
template <class Operand>
bool packed_gathers(std::vector<Gather> gathers, const Tensor& source, const Tensor& weight,
                    const Conv3dShape& s, bool forward, const Epilogue& epilogue, Tensor& target) {
  const std::optional<PackedVolume> p = packed_volume<Operand>(gathers, s.batch);
  if (!p) return false;
  const std::int64_t width = product_width(gathers.front().rows);
  const std::int64_t padded_rows = divide_up(gathers.front().rows, width) * width;
  const Tensor packed = pack_volume<Operand>(source, *p);
  const Tensor weights = pack_taps<Operand>(weight, s, forward, padded_rows);
  const auto taps = [](const Gather& g) { return g.axis[0].taps * g.axis[1].taps * g.axis[2].taps; };
  std::stable_sort(gathers.begin(), gathers.end(),  // those with most work begin
                   [&](const Gather& a, const Gather& b) { return taps(a) > taps(b); });
  Gathers some{};
  std::int64_t blocks = 0;
  const auto run = [&] {
    if (some.count == 0) return;
    const LaunchShape shape{dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(padded_rows / width),
                                 static_cast<unsigned>(s.groups)),
                            dim3(kThreads)};
    launch(kOp, product_kernel<Operand>(width), shape, target.device(), pieces(packed), pieces(weights),
           epilogue_math<float>(epilogue), some, *p, target.data<float>());
    some.count = 0;
    blocks = 0;
  };
  for (Gather& gather : gathers) {
    std::int64_t columns = s.batch;
    for (const GatherAxis& axis : gather.axis) columns *= axis.positions;
    if (columns == 0) continue;
    gather.columns = narrow(columns);
    gather.padded_rows = narrow(padded_rows);
    some.first_block[some.count] = narrow(blocks);
    some.each[some.count++] = gather;
    blocks += divide_up(columns, kColumns);
    if (some.count == kMostGathers) run();
  }
  run();
  return true;
}

template <class Operand>
bool packed_forward(const Tensor& input, const Tensor& weight, const Epilogue& epilogue,
                    const Conv3dOptions& options, Tensor& output) {
  const Conv3dShape s = conv3d_shape(input, weight, output, options);
  check_epilogue(epilogue, output);
  check(input, s);
  if (output.numel() == 0) return true;
  return packed_gathers<Operand>({forward_gather(s)}, input, weight, s, true, epilogue, output);
}

template <class Operand>
bool packed_backward_input(const Tensor& grad_output, const Tensor& weight, const Epilogue& epilogue,
                           const Conv3dOptions& options, Tensor& grad_input) {
  const Conv3dShape s = conv3d_shape(grad_input, weight, grad_output, options);
  check_epilogue(epilogue, grad_input);
  check(grad_input, s);
  if (grad_input.numel() == 0) return true;
  return packed_gathers<Operand>(backward_gathers(s), grad_output, weight, s, false, epilogue, grad_input);
}

/// Parts into which positions are cut: so many that some rounds of as many blocks as run at a time are filled
/// best. They follow from the shapes alone, so the order of the sums is the same on every GPU.
std::int64_t parts_of(std::int64_t positions, std::int64_t blocks_of_part, std::int64_t at_a_time) {
  constexpr std::int64_t kRounds = 3;
  const std::int64_t most = std::max<std::int64_t>(1, positions / kLeastSummed);
  std::int64_t best = 1;
  double best_share = 0.0;
  for (std::int64_t parts = 1; parts <= most; ++parts) {
    const std::int64_t rounds = divide_up(parts * blocks_of_part, at_a_time);
    const double share =
        static_cast<double>(parts * blocks_of_part) / static_cast<double>(rounds * at_a_time);
    if (share > best_share) {
      best = parts;
      best_share = share;
    }
    if (rounds > kRounds) break;
  }
  return best;
}

template <class Operand>
bool packed_backward_weight(const Tensor& grad_output, const Tensor& input, const Conv3dOptions& options,
                            Tensor& grad_weight) {
  constexpr std::int64_t kStep = kChunkChannels<Operand>;  // positions of a stage
  const Conv3dShape s = conv3d_shape(input, grad_weight, grad_output, options);
  check(input, s);
  if (s.batch * s.out_volume() == 0 || grad_weight.numel() == 0) return false;
  Gather gather = forward_gather(s);
  const std::optional<PackedVolume> p = packed_volume<Operand>({gather}, s.batch);
  if (!p) return false;
  gather.columns = narrow(s.batch * s.out_volume());
  PackedVolume g{};  // without a halo
  for (int axis = 0; axis < 3; ++axis) g.source[axis] = g.extent[axis] = s.axis[axis].out;
  g.voxels = gather.columns;
  g.channels = gather.rows;
  g.chunks = narrow(divide_up(s.out_channels, kChunkChannels<Operand>));
  g.groups = gather.groups;

  const std::int64_t width = product_width(s.out_channels);
  const std::int64_t down = divide_up(s.out_channels, width);
  WeightProduct w{};
  w.positions = gather.columns;
  w.taps = narrow(s.taps());
  w.units = p->chunks * w.taps;
  const std::int64_t across = divide_up(w.units * kChunkChannels<Operand>, kColumns);
  std::int64_t parts =
      parts_of(w.positions, across * down * s.groups, kMultiprocessors * (width == 128 ? 2 : 3));
  w.range = narrow(divide_up(divide_up(w.positions, parts), kStep) * kStep);
  parts = divide_up(w.positions, w.range);
  narrow(w.positions + 2 * kStep);  // the last copies may look so far ahead
  if (parts * s.groups > 65535) return false;

  const Device device = input.device();
  const Tensor packed = pack_volume<Operand>(input, *p), grads = pack_volume<Operand>(grad_output, g);
  Tensor places = Tensor::empty({w.positions}, DType::i32, device);
  launch(kOp, conv3d_places_kernel, cover(w.positions), device, gather, *p, places.data<std::int32_t>());
  Tensor partial = Tensor::empty({parts, s.groups, down * width, across, kColumns}, DType::f32, device);
  const LaunchShape shape{dim3(static_cast<unsigned>(across), static_cast<unsigned>(down),
                               static_cast<unsigned>(parts * s.groups)),
                          dim3(kThreads)};
  launch(kOp, weight_product_kernel<Operand>(width), shape, device, pieces(packed), pieces(grads),
         places.data<std::int32_t>(), gather, *p, g, w, partial.data<float>());
  const std::int64_t count = s.groups * s.out_channels * across * kColumns;
  launch(kOp, conv3d_sum_units_kernel<Operand>, cover(count), device, partial.data<float>(), narrow(parts),
         gather, w.taps, narrow(down * width), across * kColumns, count, grad_weight.data<float>());
  return true;
}

}  // namespace
}  // namespace cinnabar::cuda
