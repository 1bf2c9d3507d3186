// The inputs that a block of output positions reads are unfolded into the columns of a matrix, [channels x
// taps, positions], and a BLAS call multiplies it with the weights: Chellapilla et al., "High performance
// convolutional neural networks for document processing", 2006. Columns exist for one block and one chunk of
// channels at a time, 1 MB, so they stay in cache between their making and their use. docs/kernels/conv3d.md.

#include <algorithm>

#include "engine/divide_up.hpp"
#include "kernels/cpu/blas.hpp"
#include "kernels/cpu/conv3d_backends.hpp"
#include "kernels/cpu/epilogue_row.hpp"
#include "kernels/cpu/scratch.hpp"
#include "kernels/parallel.hpp"

namespace cinnabar::cpu::conv3d_gemm {

namespace {

constexpr std::int64_t kPositions = 512;        // of a block; fewer let BLAS repack the weights too often
constexpr std::int64_t kColumnBytes = 1 << 20;  // of the columns of one block and chunk
constexpr std::int64_t kTasks = 8;  // wanted where a shape has them, whatever the number of threads

/// How positions are cut into blocks and input channels into chunks; the same for every number of threads and
/// every batch: BLAS rounds differently where its extents differ, and an image's bits must not depend on the
/// others.
struct Blocking {
  std::int64_t positions;  ///< in a block
  std::int64_t blocks;
  std::int64_t channels;  ///< in a chunk
  std::int64_t chunks;

  Blocking(const Conv3dShape& s, std::int64_t element_bytes, bool cut_channels) {
    const std::int64_t volume = s.out_volume();
    const std::int64_t parts = cut_channels ? 1 : divide_up(kTasks, s.groups);
    const std::int64_t wanted = std::min(std::max(divide_up(volume, parts), kPositions / 4), kPositions);
    blocks = divide_up(volume, wanted);
    positions = std::min(volume, divide_up(divide_up(volume, blocks), 16) * 16);
    blocks = divide_up(volume, positions);
    channels = std::max<std::int64_t>(1, kColumnBytes / element_bytes / (positions * s.taps()));
    if (cut_channels) channels = std::min(channels, divide_up(s.in_channels, divide_up(kTasks, s.groups)));
    channels = std::min(channels, s.in_channels);
    chunks = divide_up(s.in_channels, channels);
    channels = divide_up(s.in_channels, chunks);
    chunks = divide_up(s.in_channels, channels);
  }
};

/// Positions [first, last) of a tap's row of columns, met row by row of the volume: calls
/// row(column, count, from, inside_first, inside_last) for `count` positions from column `column` on, of
/// which those in [inside_first, inside_last) read the input, the first of them at offset `from`, and the
/// others zeros.
template <class Row>
void for_each_row(const Conv3dShape& s, std::int64_t tap, std::int64_t first, std::int64_t last,
                  const Row& row) {
  const auto& [depth, height, width] = s.axis;
  const auto kw = static_cast<std::int32_t>(tap % width.kernel);
  const auto kh = static_cast<std::int32_t>(tap / width.kernel % height.kernel);
  const auto kd = static_cast<std::int32_t>(tap / width.kernel / height.kernel);
  // Positions w with 0 <= source(w, kw) < in.
  const std::int32_t start = width.source(0, kw);
  const std::int64_t low = start >= 0 ? 0 : divide_up(-start, width.stride);
  const std::int64_t high = width.in > start ? divide_up(width.in - start, width.stride) : 0;
  std::int64_t w = first % width.out;
  auto h = static_cast<std::int32_t>(first / width.out % height.out);
  auto d = static_cast<std::int32_t>(first / width.out / height.out);
  for (std::int64_t at = first; at < last;) {
    const std::int64_t count = std::min(last - at, width.out - w);
    const std::int32_t z = depth.source(d, kd);
    const std::int32_t y = height.source(h, kh);
    const bool inside = z >= 0 && z < depth.in && y >= 0 && y < height.in;
    const std::int64_t inside_first = inside ? std::clamp(low - w, std::int64_t{0}, count) : count;
    const std::int64_t inside_last = inside ? std::clamp(high - w, inside_first, count) : count;
    const std::int64_t from =
        (std::int64_t{z} * height.in + y) * width.in + start + (w + inside_first) * width.stride;
    row(at - first, count, from, inside_first, inside_last);
    at += count;
    w = 0;
    if (++h == height.out) {
      h = 0;
      ++d;
    }
  }
}

/// Writes the columns of `channels` input channels for positions [first, last).
template <class T>
void unfold(const Conv3dShape& s, const T* input, std::int64_t channels, std::int64_t first,
            std::int64_t last, T* columns) {
  const std::int64_t stride = s.axis[2].stride;
  for (std::int64_t c = 0; c < channels; ++c, input += s.in_volume()) {
    for (std::int64_t tap = 0; tap < s.taps(); ++tap, columns += last - first) {
      for_each_row(s, tap, first, last,
                   [&](std::int64_t column, std::int64_t count, std::int64_t from, std::int64_t inside_first,
                       std::int64_t inside_last) {
                     T* to = columns + column;
                     const T* source = inside_first < inside_last ? input + from : input;
                     for (std::int64_t i = 0; i < inside_first; ++i) to[i] = T(0);
                     if (stride == 1) {
                       for (std::int64_t i = inside_first; i < inside_last; ++i)
                         to[i] = source[i - inside_first];
                     } else {
                       for (std::int64_t i = inside_first; i < inside_last; ++i, source += stride)
                         to[i] = *source;
                     }
                     for (std::int64_t i = inside_last; i < count; ++i) to[i] = T(0);
                   });
    }
  }
}

/// The transpose of unfold: adds the columns to the channels they were read from.
template <class T>
void fold(const Conv3dShape& s, const T* columns, std::int64_t channels, std::int64_t first,
          std::int64_t last, T* grad_input) {
  const std::int64_t stride = s.axis[2].stride;
  for (std::int64_t c = 0; c < channels; ++c, grad_input += s.in_volume()) {
    for (std::int64_t tap = 0; tap < s.taps(); ++tap, columns += last - first) {
      for_each_row(s, tap, first, last,
                   [&](std::int64_t column, std::int64_t, std::int64_t from, std::int64_t inside_first,
                       std::int64_t inside_last) {
                     const T* source = columns + column;
                     if (inside_first == inside_last) return;
                     T* to = grad_input + from;
                     for (std::int64_t i = inside_first; i < inside_last; ++i, to += stride) *to += source[i];
                   });
    }
  }
}

int narrow(std::int64_t value) {
  return blas_extent("conv3d", value);
}

}  // namespace

template <class T>
void forward(const Conv3dShape& s, const T* input, const T* weight, const EpilogueMath<T>& epilogue,
             T* output) {
  use_one_blas_thread();
  const std::int64_t images = s.batch * s.groups, volume = s.out_volume();
  const Blocking cut(s, sizeof(T), false);
  parallel_for(images * cut.blocks, 1, [&](std::int64_t first_task, std::int64_t last_task) {
    const Scratch<T> columns(cut.channels * s.taps() * cut.positions);
    for (std::int64_t task = first_task; task < last_task; ++task) {
      const std::int64_t image = task / cut.blocks, group = image % s.groups;
      const std::int64_t first = task % cut.blocks * cut.positions;
      const std::int64_t last = std::min(first + cut.positions, volume);
      T* out = output + image * s.out_channels * volume + first;
      for (std::int64_t c = 0; c < s.in_channels; c += cut.channels) {
        const std::int64_t channels = std::min(cut.channels, s.in_channels - c);
        unfold(s, input + (image * s.in_channels + c) * s.in_volume(), channels, first, last, columns.values);
        gemm(CblasNoTrans, CblasNoTrans, narrow(s.out_channels), narrow(last - first),
             narrow(channels * s.taps()), weight + group * s.out_channels * s.depth() + c * s.taps(),
             narrow(s.depth()), columns.values, narrow(last - first), T(c == 0 ? 0 : 1), out, narrow(volume));
      }
      for (std::int64_t o = 0; o < s.out_channels; ++o) {
        T* row = out + o * volume;
        epilogue_row(epilogue, group * s.out_channels + o, row - output, last - first, row, row);
      }
    }
  });
}

template <class T>
void backward_input(const Conv3dShape& s, const T* grad_output, const T* weight,
                    const EpilogueMath<T>& epilogue, T* grad_input) {
  use_one_blas_thread();
  const std::int64_t images = s.batch * s.groups, volume = s.out_volume();
  const Blocking cut(s, sizeof(T), true);
  // A task owns a chunk of input channels of one image, so that no two add to one voxel.
  parallel_for(images * cut.chunks, 1, [&](std::int64_t first_task, std::int64_t last_task) {
    const Scratch<T> columns(cut.channels * s.taps() * cut.positions);
    for (std::int64_t task = first_task; task < last_task; ++task) {
      const std::int64_t image = task / cut.chunks, group = image % s.groups;
      const std::int64_t c = task % cut.chunks * cut.channels;
      const std::int64_t channels = std::min(cut.channels, s.in_channels - c);
      T* grad = grad_input + (image * s.in_channels + c) * s.in_volume();
      std::fill_n(grad, channels * s.in_volume(), T(0));
      for (std::int64_t first = 0; first < volume; first += cut.positions) {
        const std::int64_t last = std::min(first + cut.positions, volume);
        gemm(CblasTrans, CblasNoTrans, narrow(channels * s.taps()), narrow(last - first),
             narrow(s.out_channels), weight + group * s.out_channels * s.depth() + c * s.taps(),
             narrow(s.depth()), grad_output + image * s.out_channels * volume + first, narrow(volume), T(0),
             columns.values, narrow(last - first));
        fold(s, columns.values, channels, first, last, grad);
      }
      for (std::int64_t i = 0; i < channels; ++i) {
        T* row = grad + i * s.in_volume();
        epilogue_row(epilogue, group * s.in_channels + c + i, row - grad_input, s.in_volume(), row, row);
      }
    }
  });
}

template <class T>
void backward_weight(const Conv3dShape& s, const T* grad_output, const T* input, T* grad_weight) {
  use_one_blas_thread();
  const std::int64_t volume = s.out_volume(), size = s.groups * s.out_channels * s.depth();
  const Blocking cut(s, sizeof(T), true);
  // Where weights alone give few tasks, the blocks of all images are cut into parts that are summed
  // afterwards.
  const std::int64_t blocks = s.batch * cut.blocks, pieces = s.groups * cut.chunks;
  const std::int64_t parts = std::min(blocks, divide_up(kTasks, pieces));
  const Scratch<T> sums(parts > 1 ? parts * size : 0);
  parallel_for(pieces * parts, 1, [&](std::int64_t first_task, std::int64_t last_task) {
    const Scratch<T> columns(cut.channels * s.taps() * cut.positions);
    for (std::int64_t task = first_task; task < last_task; ++task) {
      const std::int64_t part = task / pieces, group = task % pieces / cut.chunks;
      const std::int64_t c = task % cut.chunks * cut.channels;
      const std::int64_t channels = std::min(cut.channels, s.in_channels - c);
      T* grad = (parts > 1 ? sums.values + part * size : grad_weight) + group * s.out_channels * s.depth() +
                c * s.taps();
      const std::int64_t begin = blocks * part / parts, end = blocks * (part + 1) / parts;
      for (std::int64_t block = begin; block < end; ++block) {
        const std::int64_t image = block / cut.blocks * s.groups + group;
        const std::int64_t first = block % cut.blocks * cut.positions;
        const std::int64_t last = std::min(first + cut.positions, volume);
        unfold(s, input + (image * s.in_channels + c) * s.in_volume(), channels, first, last, columns.values);
        gemm(CblasNoTrans, CblasTrans, narrow(s.out_channels), narrow(channels * s.taps()),
             narrow(last - first), grad_output + image * s.out_channels * volume + first, narrow(volume),
             columns.values, narrow(last - first), T(block == begin ? 0 : 1), grad, narrow(s.depth()));
      }
    }
  });
  if (parts == 1) return;
  parallel_for(size, 1 << 14, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      T sum = sums.values[i];
      for (std::int64_t part = 1; part < parts; ++part) sum += sums.values[part * size + i];
      grad_weight[i] = sum;
    }
  });
}

CINNABAR_CONV3D_INSTANTIATE(float);
CINNABAR_CONV3D_INSTANTIATE(double);

}  // namespace cinnabar::cpu::conv3d_gemm
