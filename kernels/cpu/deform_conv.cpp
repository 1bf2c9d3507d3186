// Columns are sampled for one block of output positions at a time and multiplied with the weights by BLAS, as
// in conv3d_gemm.cpp. A point is located once for all channels of its offset group.

#include "kernels/deform_conv.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <type_traits>

#include "engine/divide_up.hpp"
#include "kernels/cpu/blas.hpp"
#include "kernels/cpu/deform_conv_columns.hpp"
#include "kernels/cpu/epilogue_row.hpp"
#include "kernels/cpu/scratch.hpp"
#include "kernels/parallel.hpp"

namespace cinnabar::cpu {
namespace {

constexpr const char* kOp = "deform_conv";
constexpr std::int64_t kPositions = 512;        // of a block, at most
constexpr std::int64_t kColumnBytes = 1 << 20;  // of a chunk of channels of one block
constexpr std::int64_t kPanelBytes = 1 << 26;   // of the gradients of columns at one time
constexpr std::int64_t kTasks = 8;  // wanted where a shape has them, whatever the number of threads

int narrow(std::int64_t value) {
  return blas_extent(kOp, value);
}

/// Positions of one image cut into blocks, by its shape alone.
struct Blocks {
  std::int64_t volume, positions, count;

  explicit Blocks(const DeformConvShape& s) : volume(s.out_volume()) {
    positions = std::clamp(divide_up(volume, kTasks), kPositions / 4, kPositions);
    count = divide_up(volume, positions);
  }
  std::int64_t first(std::int64_t block) const { return block * positions; }
  std::int64_t width(std::int64_t block) const { return std::min(positions, volume - first(block)); }
};

/// Channels of one weight group in a chunk whose columns fit into the cache.
template <class T>
std::int64_t chunk_of_channels(const DeformConvShape& s, std::int64_t positions) {
  const std::int64_t fitting = kColumnBytes / static_cast<std::int64_t>(sizeof(T)) / (positions * s.taps());
  return std::clamp<std::int64_t>(fitting, 1, s.in_channels / s.groups);
}

template <class T, int Dims>
void run_forward(const Sampling<T>& from, const T* input, const T* weight, const EpilogueMath<T>& epilogue,
                 T* output) {
  use_one_blas_thread();
  const DeformConvShape& s = from.s;
  const Blocks blocks(s);
  const std::int64_t in = s.in_channels / s.groups, out = s.out_channels / s.groups;
  const std::int64_t chunk = chunk_of_channels<T>(s, blocks.positions);
  parallel_for(s.batch * s.groups * blocks.count, 1, [&](std::int64_t first_task, std::int64_t last_task) {
    const Scratch<T> columns(chunk * s.taps() * blocks.positions);
    for (std::int64_t task = first_task; task < last_task; ++task) {
      const std::int64_t block = task % blocks.count, image = task / blocks.count;
      const std::int64_t n = image / s.groups, group = image % s.groups;
      const std::int64_t first = blocks.first(block), width = blocks.width(block);
      T* const results = output + image * out * blocks.volume + first;
      for (std::int64_t c = 0; c < in; c += chunk) {
        const std::int64_t channels = std::min(chunk, in - c);
        sample_columns<T, Dims>(from, input + n * s.in_channels * s.in_volume(), n, group * in + c, channels,
                                first, width, columns.values);
        gemm(CblasNoTrans, CblasNoTrans, narrow(out), narrow(width), narrow(channels * s.taps()),
             weight + group * out * s.depth() + c * s.taps(), narrow(s.depth()), columns.values,
             narrow(width), T(c == 0 ? 0 : 1), results, narrow(blocks.volume));
      }
      for (std::int64_t o = 0; o < out; ++o) {
        T* const row = results + o * blocks.volume;
        epilogue_row(epilogue, group * out + o, row - output, width, row, row);
      }
    }
  });
}

template <class T, int Dims>
void run_backward_weight(const Sampling<T>& from, const T* grad_output, const T* input, T* grad_weight) {
  use_one_blas_thread();
  const DeformConvShape& s = from.s;
  const Blocks blocks(s);
  const std::int64_t in = s.in_channels / s.groups, out = s.out_channels / s.groups;
  const std::int64_t chunk = chunk_of_channels<T>(s, blocks.positions);
  // The blocks of all images are cut into parts that are summed afterwards.
  const std::int64_t all = s.batch * blocks.count, size = s.out_channels * s.depth();
  const std::int64_t parts = std::min(all, divide_up(kTasks, s.groups));
  const Scratch<T> sums(parts * size);
  parallel_for(parts * s.groups, 1, [&](std::int64_t first_task, std::int64_t last_task) {
    const Scratch<T> columns(chunk * s.taps() * blocks.positions);
    for (std::int64_t task = first_task; task < last_task; ++task) {
      const std::int64_t part = task / s.groups, group = task % s.groups;
      const std::int64_t begin = all * part / parts, end = all * (part + 1) / parts;
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t n = i / blocks.count, block = i % blocks.count;
        const std::int64_t first = blocks.first(block), width = blocks.width(block);
        for (std::int64_t c = 0; c < in; c += chunk) {
          const std::int64_t channels = std::min(chunk, in - c);
          sample_columns<T, Dims>(from, input + n * s.in_channels * s.in_volume(), n, group * in + c,
                                  channels, first, width, columns.values);
          gemm(CblasNoTrans, CblasTrans, narrow(out), narrow(channels * s.taps()), narrow(width),
               grad_output + (n * s.groups + group) * out * blocks.volume + first, narrow(blocks.volume),
               columns.values, narrow(width), T(i == begin ? 0 : 1),
               sums.values + part * size + group * out * s.depth() + c * s.taps(), narrow(s.depth()));
        }
      }
    }
  });
  parallel_for(size, 1 << 14, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      T sum = sums.values[i];
      for (std::int64_t part = 1; part < parts; ++part) sum += sums.values[part * size + i];
      grad_weight[i] = sum;
    }
  });
}

/// The gradients of the columns of a panel of blocks are computed and read for points, block by block; then
/// each task adds those of some channels to one image, so that no two add to one voxel.
template <class T, int Dims>
void run_backward_sampling(const Sampling<T>& from, const T* grad_output, const T* input, const T* weight,
                           std::int64_t workspace_bytes, const SamplingGradients<T>& gradients) {
  use_one_blas_thread();
  const DeformConvShape& s = from.s;
  const Blocks blocks(s);
  const std::int64_t in = s.in_channels / s.groups, out = s.out_channels / s.groups;
  const std::int64_t image_size = s.in_channels * s.in_volume(), block_size = s.rows() * blocks.positions;
  const std::int64_t all = s.batch * blocks.count;
  const std::int64_t panel_size =
      std::min(workspace_bytes, kPanelBytes) / static_cast<std::int64_t>(sizeof(T));
  const std::int64_t panel = std::clamp<std::int64_t>(panel_size / block_size, 1, all);
  const Scratch<T> columns(panel * block_size);
  if (gradients.input != nullptr) std::fill_n(gradients.input, s.batch * image_size, T(0));
  for (std::int64_t begin = 0; begin < all; begin += panel) {
    const std::int64_t end = std::min(begin + panel, all);
    parallel_for(end - begin, 1, [&](std::int64_t first_task, std::int64_t last_task) {
      for (std::int64_t task = first_task; task < last_task; ++task) {
        const std::int64_t n = (begin + task) / blocks.count, block = (begin + task) % blocks.count;
        const std::int64_t first = blocks.first(block), width = blocks.width(block);
        T* const grad_columns = columns.values + task * block_size;
        for (std::int64_t group = 0; group < s.groups; ++group) {
          gemm(CblasTrans, CblasNoTrans, narrow(s.depth()), narrow(width), narrow(out),
               weight + group * out * s.depth(), narrow(s.depth()),
               grad_output + (n * s.groups + group) * out * blocks.volume + first, narrow(blocks.volume),
               T(0), grad_columns + group * in * s.taps() * width, narrow(width));
        }
        if (gradients.offset == nullptr && gradients.mask == nullptr) continue;
        differentiate_points<T, Dims>(from, input + n * image_size, n, first, width, grad_columns, gradients);
      }
    });
    if (gradients.input == nullptr) continue;
    const std::int64_t first_image = begin / blocks.count, last_image = (end - 1) / blocks.count;
    const std::int64_t chunk = divide_up(s.in_channels, kTasks), chunks = divide_up(s.in_channels, chunk);
    parallel_for((last_image - first_image + 1) * chunks, 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t task = first; task < last; ++task) {
        const std::int64_t n = first_image + task / chunks, channel = task % chunks * chunk;
        const std::int64_t last_channel = std::min(channel + chunk, s.in_channels);
        const std::int64_t last_block = std::min(end, (n + 1) * blocks.count);
        for (std::int64_t i = std::max(begin, n * blocks.count); i < last_block; ++i) {
          const std::int64_t block = i % blocks.count;
          scatter_columns<T, Dims>(from, n, channel, last_channel, blocks.first(block), blocks.width(block),
                                   columns.values + (i - begin) * block_size,
                                   gradients.input + n * image_size);
        }
      }
    });
  }
}

/// Calls fn(T{}, integral_constant of the number of axes).
template <class Function>
void dispatch(const Tensor& input, const DeformConvShape& shape, const Function& fn) {
  dispatch_floating(kOp, input.dtype(), [&](auto type) {
    if (shape.dims == 2) return fn(type, std::integral_constant<int, 2>{});
    fn(type, std::integral_constant<int, 3>{});
  });
}

template <class T>
Sampling<T> sampling_of(const DeformConvShape& shape, const Tensor& offset, const Tensor& mask) {
  return {shape, offset.data<T>(), mask.defined() ? mask.data<T>() : nullptr};
}

template <class T>
T* data_or_null(Tensor& tensor) {
  return tensor.defined() ? tensor.data<T>() : nullptr;
}

void forward(const Tensor& input, const Tensor& offset, const Tensor& mask, const Tensor& weight,
             const Epilogue& epilogue, const DeformConvOptions& options, Tensor& output) {
  const DeformConvShape shape = deform_conv_shape(input, offset, mask, weight, output, options);
  check_epilogue(epilogue, output);
  if (shape.batch == 0) return;
  dispatch(input, shape, [&](auto type, auto dims) {
    using T = decltype(type);
    run_forward<T, dims()>(sampling_of<T>(shape, offset, mask), input.data<T>(), weight.data<T>(),
                           epilogue_math<T>(epilogue), output.data<T>());
  });
}

void backward_weight(const Tensor& grad_output, const Tensor& input, const Tensor& offset, const Tensor& mask,
                     const DeformConvOptions& options, Tensor& grad_weight) {
  const DeformConvShape shape = deform_conv_shape(input, offset, mask, grad_weight, grad_output, options);
  if (shape.batch == 0) return grad_weight.fill(0.0);
  dispatch(input, shape, [&](auto type, auto dims) {
    using T = decltype(type);
    run_backward_weight<T, dims()>(sampling_of<T>(shape, offset, mask), grad_output.data<T>(),
                                   input.data<T>(), grad_weight.data<T>());
  });
}

void backward_sampling(const Tensor& grad_output, const Tensor& input, const Tensor& offset,
                       const Tensor& mask, const Tensor& weight, const DeformConvOptions& options,
                       Tensor& grad_input, Tensor& grad_offset, Tensor& grad_mask) {
  const DeformConvShape shape = deform_conv_backward_shape(grad_output, input, offset, mask, weight, options,
                                                           grad_input, grad_offset, grad_mask);
  if (shape.batch == 0) return;
  dispatch(input, shape, [&](auto type, auto dims) {
    using T = decltype(type);
    run_backward_sampling<T, dims()>(
        sampling_of<T>(shape, offset, mask), grad_output.data<T>(), input.data<T>(), weight.data<T>(),
        options.workspace_bytes,
        {data_or_null<T>(grad_input), data_or_null<T>(grad_offset), data_or_null<T>(grad_mask)});
  });
}

}  // namespace

extern const DeformConv deform_conv;
const DeformConv deform_conv{forward, backward_weight, backward_sampling};

}  // namespace cinnabar::cpu
