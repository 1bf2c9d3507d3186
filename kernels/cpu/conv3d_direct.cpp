// Convolution of stride 1 straight from the definition, a block of sums held in registers: sums of kOutputs
// channels at kVectors registers of neighbouring positions, each tap's input loaded once for all of them. The
// planes that a plane of outputs reads are copied with their padding first. Rows of that copy lie one behind
// the other, so a block of positions may run on from one row into the next: the few sums across the seam are
// computed and thrown away, and no register is ever partly full. After Georganas et al., "Anatomy of high-
// performance deep learning convolutions on SIMD architectures", SC 2018. docs/kernels/conv3d.md.

#include <algorithm>
#include <type_traits>

#include "kernels/cpu/conv3d_backends.hpp"
#include "kernels/cpu/epilogue_row.hpp"
#include "kernels/cpu/padded_slab.hpp"
#include "kernels/parallel.hpp"

namespace cinnabar::cpu::conv3d_direct {

namespace {

#ifdef __AVX512F__
constexpr int kOutputs = 8;  // channels of a block of sums
constexpr int kVectors = 3;  // registers of positions; 24 sums, 3 inputs and a weight fill 28 of 32
#else
constexpr int kOutputs = 4;
constexpr int kVectors = 2;  // 8 sums, 2 inputs, a weight and a product fill 12 of 16
#endif
constexpr int kTapsAtOnce = 3;      // along W, of a block of the weight's gradient
constexpr std::int64_t kTasks = 8;  // wanted where a shape has them, whatever the number of threads

/// Numbers that a block of sums may read beyond the last row.
template <class T>
constexpr std::int64_t kOvershoot = kVectors* kLanes<T>;

/// Lanes at any address.
template <class T>
struct LooseLanesOf {
  typedef T type __attribute__((vector_size(kLaneBytes), aligned(alignof(T)), may_alias));
};
template <class T>
using LooseLanes = typename LooseLanesOf<T>::type;

template <class T>
Lanes<T> load(const T* values) {
  return *reinterpret_cast<const LooseLanes<T>*>(values);
}

/// The sizes of blocks of output channels: as many of kOutputs as fit, then smaller powers of two.
std::int64_t block_size(std::int64_t left) {
  std::int64_t size = kOutputs;
  while (size > left) size /= 2;
  return size;
}

/// Calls fn with a size as a compile-time constant.
template <class Function>
void with_block_size(std::int64_t size, const Function& fn) {
  if (size == 8) return fn(std::integral_constant<int, 8>{});
  if (size == 4) return fn(std::integral_constant<int, 4>{});
  if (size == 2) return fn(std::integral_constant<int, 2>{});
  fn(std::integral_constant<int, 1>{});
}

/// Weights [groups][blocks][c][tap][o of the block], at(group, o, c, tap) taken from anywhere.
template <class T, class At>
void pack(const Correlation& c, const At& at, T* packed) {
  for (std::int64_t group = 0; group < c.groups; ++group) {
    for (std::int64_t o = 0; o < c.written;) {
      const std::int64_t block = block_size(c.written - o);
      for (std::int64_t channel = 0; channel < c.read; ++channel) {
        for (std::int64_t tap = 0; tap < c.taps(); ++tap) {
          for (std::int64_t i = 0; i < block; ++i) *packed++ = at(group, o + i, channel, tap);
        }
      }
      o += block;
    }
  }
}

/// Sums of kRows output channels at kCount registers of positions from `position` on.
template <int kRows, int kCount, class T>
void sum_block(const Correlation& c, const Slab<T>& slab, std::int64_t plane, std::int64_t position,
               const T* weights, std::int64_t distance, T* sums) {
  Lanes<T> block[kRows][kCount] = {};
  for (std::int64_t channel = 0; channel < c.read; ++channel) {
    for (std::int64_t kd = 0; kd < c.kernel[0]; ++kd) {
      for (std::int64_t kh = 0; kh < c.kernel[1]; ++kh) {
        const T* from = slab.row(channel, plane + kd, kh) + position;
        for (std::int64_t kw = 0; kw < c.kernel[2]; ++kw, ++from, weights += kRows) {
          Lanes<T> inputs[kCount];
          CINNABAR_UNROLL
          for (int v = 0; v < kCount; ++v) inputs[v] = load(from + v * kLanes<T>);
          CINNABAR_UNROLL
          for (int r = 0; r < kRows; ++r) {
            CINNABAR_UNROLL
            for (int v = 0; v < kCount; ++v) block[r][v] += weights[r] * inputs[v];
          }
        }
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kCount; ++v) {
      *reinterpret_cast<LooseLanes<T>*>(sums + r * distance + position + v * kLanes<T>) = block[r][v];
    }
  }
}

/// The same for all positions of a plane.
template <int kRows, class T>
void sum_plane(const Correlation& c, const Slab<T>& slab, std::int64_t plane, std::int64_t positions,
               const T* weights, std::int64_t distance, T* sums) {
  constexpr std::int64_t kStep = kVectors * kLanes<T>;
  std::int64_t first = 0;
  for (; first + kStep <= positions; first += kStep) {
    sum_block<kRows, kVectors>(c, slab, plane, first, weights, distance, sums);
  }
  for (; first < positions; first += kLanes<T>) {
    sum_block<kRows, 1>(c, slab, plane, first, weights, distance, sums);
  }
}

template <class T>
void correlate(const Correlation& c, const T* input, const T* packed, const EpilogueMath<T>& epilogue,
               T* output) {
  const Cut cut(c, c.read, sizeof(T), 1);
  const std::int64_t depth = c.read * c.taps(), images = c.batch * c.groups;
  parallel_for(images * cut.regions(), 1, [&](std::int64_t begin, std::int64_t end) {
    Slab<T> slab(c, cut, c.read, kOvershoot<T>);
    const std::int64_t distance = divide_up(cut.rows * c.pitch(), kLanes<T>) * kLanes<T>;
    const Scratch<T> sums(kOutputs * distance);
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t image = task / cut.regions(), group = image % c.groups;
      const Region region = cut.region(c, task % cut.regions());
      const std::int64_t positions = (region.rows - 1) * c.pitch() + c.out[2];
      slab.read(input + image * c.read * c.in_volume(), region, c.read);
      for (std::int64_t o = 0; o < c.written;) {
        const std::int64_t block = block_size(c.written - o);
        with_block_size(block, [&](auto rows) {
          sum_plane<rows>(c, slab, 0, positions, packed + (group * c.written + o) * depth, distance,
                          sums.values);
        });
        for (std::int64_t i = 0; i < block; ++i, ++o) {
          const std::int64_t first = (image * c.written + o) * c.out_volume() +
                                     (region.plane * c.out[1] + region.first_row) * c.out[2];
          for (std::int64_t row = 0; row < region.rows; ++row) {
            const std::int64_t at = first + row * c.out[2];
            std::copy_n(sums.values + i * distance + row * c.pitch(), c.out[2], output + at);
          }
          epilogue_row(epilogue, group * c.written + o, first, region.rows * c.out[2], output + first,
                       output + first);
        }
      }
    }
  });
}

template <class T>
T sum_of(const Lanes<T>& lanes) {
  T sum = 0;
  for (std::int64_t i = 0; i < kLanes<T>; ++i) sum += lanes[i];
  return sum;
}

/// Gradients of kRows x kTaps weights over a region: gradient row r of grads[r] times inputs shifted by the
/// taps. `grads` holds `planes` planes of `count` numbers each, a multiple of kLanes, zero between rows.
template <int kRows, int kTaps, class T>
void weight_block(const Slab<T>& slab, std::int64_t channel, std::int64_t kd, std::int64_t kh,
                  std::int64_t kw, std::int64_t planes, const T* grads, std::int64_t count, double* sums,
                  std::int64_t sums_distance) {
  Lanes<T> block[kRows][kTaps] = {};
  for (std::int64_t plane = 0; plane < planes; ++plane) {
    const T* from = slab.row(channel, plane + kd, kh) + kw;
    const T* grad = grads + plane * count;
    for (std::int64_t q = 0; q < count; q += kLanes<T>) {
      Lanes<T> inputs[kTaps];
      CINNABAR_UNROLL
      for (int t = 0; t < kTaps; ++t) inputs[t] = load(from + q + t);
      CINNABAR_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const Lanes<T> value = load(grad + r * planes * count + q);
        CINNABAR_UNROLL
        for (int t = 0; t < kTaps; ++t) block[r][t] += value * inputs[t];
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTaps; ++t)
      sums[r * sums_distance + t] += static_cast<double>(sum_of<T>(block[r][t]));
  }
}

/// The same for all taps of one input channel.
template <int kRows, class T>
void weight_taps(const Correlation& c, const Slab<T>& slab, std::int64_t channel, std::int64_t planes,
                 const T* grads, std::int64_t count, double* sums, std::int64_t sums_distance) {
  for (std::int64_t kd = 0; kd < c.kernel[0]; ++kd) {
    for (std::int64_t kh = 0; kh < c.kernel[1]; ++kh, sums += c.kernel[2]) {
      std::int64_t kw = 0;
      for (; kw + kTapsAtOnce <= c.kernel[2]; kw += kTapsAtOnce) {
        weight_block<kRows, kTapsAtOnce>(slab, channel, kd, kh, kw, planes, grads, count, sums + kw,
                                         sums_distance);
      }
      for (; kw < c.kernel[2]; ++kw) {
        weight_block<kRows, 1>(slab, channel, kd, kh, kw, planes, grads, count, sums + kw, sums_distance);
      }
    }
  }
}

/// Rows of the output's gradient over a region, with zeros up to the pitch: [block][planes][count].
template <class T>
void read_gradients(const Correlation& c, const T* grad, const Region& region, std::int64_t block,
                    std::int64_t count, T* rows) {
  for (std::int64_t i = 0; i < block; ++i, grad += c.out_volume()) {
    for (std::int64_t plane = 0; plane < region.planes; ++plane, rows += count) {
      const T* from = grad + ((region.plane + plane) * c.out[1] + region.first_row) * c.out[2];
      std::fill_n(rows, count, T(0));
      for (std::int64_t row = 0; row < region.rows; ++row) {
        std::copy_n(from + row * c.out[2], c.out[2], rows + row * c.pitch());
      }
    }
  }
}

}  // namespace

template <class T>
void forward(const Conv3dShape& s, const T* input, const T* weight, const EpilogueMath<T>& epilogue,
             T* output) {
  const Correlation c = forward_of(s);
  const Scratch<T> packed(s.groups * s.out_channels * s.depth());
  pack<T>(
      c,
      [&](std::int64_t group, std::int64_t o, std::int64_t channel, std::int64_t tap) {
        return weight[((group * s.out_channels + o) * s.in_channels + channel) * s.taps() + tap];
      },
      packed.values);
  correlate(c, input, packed.values, epilogue, output);
}

template <class T>
void backward_input(const Conv3dShape& s, const T* grad_output, const T* weight,
                    const EpilogueMath<T>& epilogue, T* grad_input) {
  const Correlation c = backward_of(s);
  const Scratch<T> packed(s.groups * s.out_channels * s.depth());
  pack<T>(
      c,
      [&](std::int64_t group, std::int64_t channel, std::int64_t o, std::int64_t tap) {
        return weight[((group * s.out_channels + o) * s.in_channels + channel + 1) * s.taps() - 1 - tap];
      },
      packed.values);
  correlate(c, grad_output, packed.values, epilogue, grad_input);
}

template <class T>
void backward_weight(const Conv3dShape& s, const T* grad_output, const T* input, T* grad_weight) {
  constexpr std::int64_t kPlanes =
      4;  // summed in one go: adding up the lanes of a sum costs as much as a row
  const Correlation c = forward_of(s);
  // A task owns a chunk of input channels; where there are few of them, volumes are cut into parts as well,
  // which are summed afterwards.
  const std::int64_t chunks = std::min(kTasks, c.read), channels = divide_up(c.read, chunks);
  const Cut cut(c, channels, sizeof(T), kPlanes);
  const std::int64_t count = divide_up(cut.rows * c.pitch(), kLanes<T>) * kLanes<T>;
  const std::int64_t regions = c.batch * cut.regions(), size = c.groups * c.written * s.depth();
  const std::int64_t parts = std::min(regions, divide_up(kTasks, c.groups * chunks));
  const Scratch<double> sums(parts * size);
  std::fill_n(sums.values, parts * size, 0.0);
  parallel_for(parts * c.groups * chunks, 1, [&](std::int64_t begin, std::int64_t end) {
    Slab<T> slab(c, cut, channels, kOvershoot<T>);
    const Scratch<T> grads(kOutputs * cut.planes * count);
    for (std::int64_t task = begin; task < end; ++task) {
      const std::int64_t part = task / (c.groups * chunks), group = task / chunks % c.groups;
      const std::int64_t first = task % chunks * channels, last = std::min(first + channels, c.read);
      double* mine = sums.values + part * size + group * c.written * s.depth();
      for (std::int64_t i = regions * part / parts; i < regions * (part + 1) / parts; ++i) {
        const std::int64_t image = i / cut.regions() * c.groups + group;
        const Region region = cut.region(c, i % cut.regions());
        slab.read(input + (image * c.read + first) * c.in_volume(), region, last - first);
        for (std::int64_t o = 0; o < c.written;) {
          const std::int64_t block = block_size(c.written - o);
          read_gradients(c, grad_output + (image * c.written + o) * c.out_volume(), region, block, count,
                         grads.values);
          with_block_size(block, [&](auto rows) {
            for (std::int64_t channel = first; channel < last; ++channel) {
              weight_taps<rows>(c, slab, channel - first, region.planes, grads.values, count,
                                mine + o * s.depth() + channel * s.taps(), s.depth());
            }
          });
          o += block;
        }
      }
    }
  });
  parallel_for(size, 1 << 14, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      double sum = 0.0;
      for (std::int64_t part = 0; part < parts; ++part) sum += sums.values[part * size + i];
      grad_weight[i] = static_cast<T>(sum);
    }
  });
}

CINNABAR_CONV3D_INSTANTIATE(float);
CINNABAR_CONV3D_INSTANTIATE(double);

}  // namespace cinnabar::cpu::conv3d_direct
