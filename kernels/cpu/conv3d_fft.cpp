// Convolution as products of spectra: each channel of each image is transformed whole, each frequency is a
// complex matrix product over the channels, and the result is transformed back: Mathieu, Henaff and LeCun,
// "Fast training of convolutional networks through FFTs", 2014. Circular transforms of extent in + padding
// are enough: the zeros after the input serve as its padding on both sides. docs/kernels/conv3d.md.
//
// The spectra of the weights would be in_channels x out_channels volumes. They are never stored: a kernel has
// few taps, so its spectrum at one frequency is a short sum, taken axis by axis. For a fixed frequency along
// D the taps along D are summed first, for a fixed one along H those along H, and then those along W. The
// weight's gradient runs the same way backwards. All of it, transforms, sums and products, works on lanes:
// one number for each of 16 channels.

#include <algorithm>

#include "kernels/cpu/conv3d_backends.hpp"
#include "kernels/cpu/spectra.hpp"
#include "kernels/cpu/weight_spectra.hpp"

namespace cinnabar::cpu::conv3d_fft {

namespace {

constexpr std::int64_t kReadAtOnce = 32;  // channels; their terms along W are 12 KB for 3 taps and stay in L1
constexpr std::int64_t kMostRoom = kReadAtOnce + 1;
constexpr std::int64_t kDepthParts = 4;  // of the frequencies along D, for tasks enough
#ifdef __AVX512F__
constexpr int kRows = 4;  // of a product kept in registers, each a complex number of lanes
#else
constexpr int kRows = 2;
#endif

/// In and padding on every axis, also enough for the output and the taps. Sums over lines are as fast at any
/// extent.
SpectrumGrid grid_of(const Conv3dShape& s) {
  SpectrumGrid grid{};
  for (std::size_t i = 0; i < 3; ++i) {
    const Conv3dAxis& axis = s.axis[i];
    grid.extent[i] = std::max({axis.in + axis.padding, axis.out, axis.kernel});
  }
  return grid;
}

VolumeBatch inputs_of(const Conv3dShape& s) {
  return {s.batch, s.groups, s.in_channels, {s.axis[0].in, s.axis[1].in, s.axis[2].in}, {0, 0, 0}};
}

/// Output p is the circular result at p - padding + middle tap, as a kernel's transform has its middle at 0.
VolumeBatch outputs_of(const Conv3dShape& s, const SpectrumGrid& grid) {
  VolumeBatch volumes{s.batch, s.groups, s.out_channels, {s.axis[0].out, s.axis[1].out, s.axis[2].out}, {}};
  for (std::size_t i = 0; i < 3; ++i) {
    const std::int64_t extent = grid.extent[i];
    volumes.shift[i] = ((s.axis[i].kernel / 2 - s.axis[i].padding) % extent + extent) % extent;
  }
  return volumes;
}

template <class T>
TapTerms<T> terms_of(const Conv3dShape& s, const SpectrumGrid& grid, int sign) {
  return {{{s.axis[0].kernel, grid.extent[0], sign},
           {s.axis[1].kernel, grid.extent[1], sign},
           {s.axis[2].kernel, grid.extent[2], sign}}};
}

/// How a group's weights are cut: lanes of written channels, chunks of read ones.
struct Cut {
  std::int64_t written, written_stride, written_blocks;
  std::int64_t read, read_stride, read_chunks;

  template <class T>
  typename TapTerms<T>::Channels channels(std::int64_t block, std::int64_t chunk) const {
    const std::int64_t first = block * kLanes<T>;
    return {first,
            std::min(kLanes<T>, written - first),
            written_stride,
            chunk * kReadAtOnce,
            std::min(kReadAtOnce, read - chunk * kReadAtOnce),
            read_stride};
  }
};

/// The forward pass writes output channels and reads input channels; so does the weight's gradient.
template <class T>
Cut cut_of(const Conv3dShape& s, bool writes_outputs) {
  const std::int64_t written = writes_outputs ? s.out_channels : s.in_channels;
  const std::int64_t read = writes_outputs ? s.in_channels : s.out_channels;
  const std::int64_t chunks = (read + kReadAtOnce - 1) / kReadAtOnce;
  const std::int64_t inner = s.taps(), outer = s.depth();
  return {written, writes_outputs ? outer : inner, lane_blocks<T>(written),
          read,    writes_outputs ? inner : outer, chunks};
}

/// to[image] += from[image] matrix for kImages images, the matrix with a row of lanes for each of `count`
/// channels read.
template <int kImages, class T>
void multiply(const ComplexLanes<T>* matrix, std::int64_t count, const ComplexLanes<T>* from,
              const Spectra<T>& from_layout, ComplexLanes<T>* to, const Spectra<T>& to_layout) {
  ComplexLanes<T> sums[kImages];
  const std::int64_t from_stride = from_layout.image_stride(), to_stride = to_layout.image_stride();
  for (int i = 0; i < kImages; ++i) sums[i] = to[i * to_stride];
  for (std::int64_t first = 0; first < count; first += kLanes<T>) {
    const T* values = reinterpret_cast<const T*>(from + first / kLanes<T> * from_layout.block_stride());
    const std::int64_t lanes = std::min(kLanes<T>, count - first);
    for (std::int64_t lane = 0; lane < lanes; ++lane) {
      const ComplexLanes<T> row = matrix[first + lane];
      CINNABAR_UNROLL
      for (int i = 0; i < kImages; ++i) {
        const T* value = values + i * from_stride * 2 * kLanes<T> + lane;
        sums[i].re += value[0] * row.re;
        sums[i].im += value[0] * row.im;
        sums[i].re -= value[kLanes<T>] * row.im;
        sums[i].im += value[kLanes<T>] * row.re;
      }
    }
  }
  for (int i = 0; i < kImages; ++i) to[i * to_stride] = sums[i];
}

/// The same for all images.
template <class T>
void multiply_all(const ComplexLanes<T>* matrix, std::int64_t count, std::int64_t batch,
                  const ComplexLanes<T>* from, const Spectra<T>& from_layout, ComplexLanes<T>* to,
                  const Spectra<T>& to_layout) {
  std::int64_t n = 0;
  for (; n + kRows <= batch; n += kRows) {
    multiply<kRows>(matrix, count, from + n * from_layout.image_stride(), from_layout,
                    to + n * to_layout.image_stride(), to_layout);
  }
  for (; n < batch; ++n) {
    multiply<1>(matrix, count, from + n * from_layout.image_stride(), from_layout,
                to + n * to_layout.image_stride(), to_layout);
  }
}

/// matrix[r] = sum over images of conj(left[image]) right[image] at the lane of channel r, for kChannels
/// channels from that of `right` on.
template <int kChannels, class T>
void multiply_images(const ComplexLanes<T>* left, std::int64_t left_stride, const T* right,
                     std::int64_t right_stride, std::int64_t batch, ComplexLanes<T>* matrix) {
  ComplexLanes<T> sums[kChannels] = {};
  for (std::int64_t n = 0; n < batch; ++n) {
    const ComplexLanes<T> value = left[n * left_stride];
    const T* scalars = right + n * right_stride * 2 * kLanes<T>;
    CINNABAR_UNROLL
    for (int r = 0; r < kChannels; ++r) {
      sums[r].re += scalars[r] * value.re;
      sums[r].im += scalars[kLanes<T> + r] * value.re;
      sums[r].re += scalars[kLanes<T> + r] * value.im;
      sums[r].im -= scalars[r] * value.im;
    }
  }
  for (int r = 0; r < kChannels; ++r) matrix[r] = sums[r];
}

/// Terms of a chunk of channels with the frequency along D, then H, then W fixed.
template <class T>
struct FixedTerms {
  explicit FixedTerms(const TapTerms<T>& terms)
      : slice(terms.slice_terms() * kMostRoom), row(terms.axis[2].terms() * kMostRoom), matrix(kMostRoom) {}
  Scratch<ComplexLanes<T>> slice;   ///< [terms H][terms W][read]
  Scratch<ComplexLanes<T>> row;     ///< [terms W][read]
  Scratch<ComplexLanes<T>> matrix;  ///< [read]
};

/// For every frequency: to = from times the weights' transforms.
template <class T>
void multiply_by_weights(const Conv3dShape& s, const SpectrumGrid& grid, const T* weight, bool forward,
                         const Spectra<T>& from, const Spectra<T>& to) {
  const TapTerms<T> terms = terms_of<T>(s, grid, forward ? +1 : -1);
  const Cut cut = cut_of<T>(s, forward);
  const std::int64_t chunk_size = terms.terms() * kMostRoom * kLanes<T>;
  const Scratch<T> all(s.groups * cut.written_blocks * cut.read_chunks * chunk_size);
  parallel_for(s.groups * cut.written_blocks * cut.read_chunks, 1,
               [&](std::int64_t first, std::int64_t last) {
                 for (std::int64_t task = first; task < last; ++task) {
                   const std::int64_t block = task / cut.read_chunks;
                   const T* group = weight + block / cut.written_blocks * s.out_channels * s.depth();
                   terms.read(group, cut.channels<T>(block % cut.written_blocks, task % cut.read_chunks),
                              reinterpret_cast<Lanes<T>*>(all.values + task * chunk_size));
                 }
               });
  // A task owns one block of written channels in a range of frequencies along D. Its taps, 55 KB a chunk, are
  // read for every one of them.
  const std::int64_t parts = std::min(kDepthParts, grid.extent[0]), slice = grid.extent[1] * grid.half();
  parallel_for(s.groups * parts * cut.written_blocks, 1, [&](std::int64_t first, std::int64_t last) {
    const FixedTerms<T> fixed(terms);
    for (std::int64_t task = first; task < last; ++task) {
      const std::int64_t block = task % cut.written_blocks, part = task / cut.written_blocks % parts;
      const std::int64_t group = task / cut.written_blocks / parts;
      const std::int64_t begin = grid.extent[0] * part / parts, end = grid.extent[0] * (part + 1) / parts;
      ComplexLanes<T>* mine = to.at(0, group) + block * to.block_stride();
      for (std::int64_t n = 0; n < s.batch; ++n) {
        std::fill_n(mine + n * to.image_stride() + begin * slice, (end - begin) * slice, ComplexLanes<T>{});
      }
      for (std::int64_t chunk = 0; chunk < cut.read_chunks; ++chunk) {
        const auto channels = cut.channels<T>(block, chunk);
        const std::int64_t room = channels.room();
        const T* taps =
            all.values + ((group * cut.written_blocks + block) * cut.read_chunks + chunk) * chunk_size;
        const ComplexLanes<T>* read =
            from.at(0, group) + chunk * kReadAtOnce / kLanes<T> * from.block_stride();
        for (std::int64_t fd = begin; fd < end; ++fd) {
          sum_terms(terms.axis[0], fd, reinterpret_cast<const Lanes<T>*>(taps), terms.slice_terms() * room,
                    fixed.slice.values);
          for (std::int64_t fh = 0; fh < grid.extent[1]; ++fh) {
            sum_terms(terms.axis[1], fh, fixed.slice.values, terms.axis[2].terms() * room, fixed.row.values);
            for (std::int64_t fw = 0; fw < grid.half(); ++fw) {
              sum_terms(terms.axis[2], fw, fixed.row.values, room, fixed.matrix.values);
              const std::int64_t f = fd * slice + fh * grid.half() + fw;
              multiply_all(fixed.matrix.values, channels.read_count, s.batch, read + f, from, mine + f, to);
            }
          }
        }
      }
    }
  });
}

}  // namespace

template <class T>
void forward(const Conv3dShape& s, const T* input, const T* weight, const EpilogueMath<T>& epilogue,
             T* output) {
  const SpectrumGrid grid = grid_of(s);
  Spectra<T> in(grid, inputs_of(s));
  Spectra<T> out(grid, outputs_of(s, grid));
  in.read(input);
  multiply_by_weights(s, grid, weight, true, in, out);
  out.write(output, epilogue);
}

template <class T>
void backward_input(const Conv3dShape& s, const T* grad_output, const T* weight,
                    const EpilogueMath<T>& epilogue, T* grad_input) {
  const SpectrumGrid grid = grid_of(s);
  Spectra<T> out(grid, outputs_of(s, grid));
  Spectra<T> in(grid, inputs_of(s));
  out.read(grad_output);
  multiply_by_weights(s, grid, weight, false, out, in);
  in.write(grad_input, epilogue);
}

template <class T>
void backward_weight(const Conv3dShape& s, const T* grad_output, const T* input, T* grad_weight) {
  const SpectrumGrid grid = grid_of(s);
  Spectra<T> in(grid, inputs_of(s));
  Spectra<T> out(grid, outputs_of(s, grid));
  in.read(input);
  out.read(grad_output);
  const TapTerms<T> terms = terms_of<T>(s, grid, +1);
  const Cut cut = cut_of<T>(s, true);
  // A task owns the weights of one block of output channels and one chunk of input channels.
  parallel_for(
      s.groups * cut.written_blocks * cut.read_chunks, 1, [&](std::int64_t first, std::int64_t last) {
        const FixedTerms<T> fixed(terms);
        const Scratch<T> sums(terms.terms() * kMostRoom * kLanes<T>);
        for (std::int64_t task = first; task < last; ++task) {
          const std::int64_t chunk = task % cut.read_chunks,
                             block = task / cut.read_chunks % cut.written_blocks;
          const std::int64_t group = task / cut.read_chunks / cut.written_blocks;
          const auto channels = cut.channels<T>(block, chunk);
          const std::int64_t room = channels.room();
          const std::int64_t row_size = terms.axis[2].terms() * room, slice_size = terms.slice_terms() * room;
          std::fill_n(sums.values, terms.terms() * room * kLanes<T>, T(0));
          std::fill_n(fixed.matrix.values, kMostRoom, ComplexLanes<T>{});
          for (std::int64_t fd = 0; fd < grid.extent[0]; ++fd) {
            std::fill_n(fixed.slice.values, slice_size, ComplexLanes<T>{});
            for (std::int64_t fh = 0; fh < grid.extent[1]; ++fh) {
              std::fill_n(fixed.row.values, row_size, ComplexLanes<T>{});
              for (std::int64_t fw = 0; fw < grid.half(); ++fw) {
                const std::int64_t f = (fd * grid.extent[1] + fh) * grid.half() + fw;
                const ComplexLanes<T>* left = out.at(f, group) + block * out.block_stride();
                const ComplexLanes<T>* right =
                    in.at(f, group) + chunk * kReadAtOnce / kLanes<T> * in.block_stride();
                for (std::int64_t r = 0; r < channels.read_count;
                     r += kRows) {  // lanes beyond the channels are zero
                  const T* scalars =
                      reinterpret_cast<const T*>(right + r / kLanes<T> * in.block_stride()) + r % kLanes<T>;
                  multiply_images<kRows>(left, out.image_stride(), scalars, in.image_stride(), s.batch,
                                         fixed.matrix.values + r);
                }
                // Only half of the frequencies along W are stored; the others are conjugates.
                const T copies = fw == 0 || 2 * fw == grid.extent[2] ? T(1) : T(2);
                add_to_terms(terms.axis[2], fw, copies, fixed.matrix.values, room, fixed.row.values);
              }
              add_to_terms(terms.axis[1], fh, T(1), fixed.row.values, row_size, fixed.slice.values);
            }
            add_to_terms(terms.axis[0], fd, fixed.slice.values, slice_size,
                         reinterpret_cast<Lanes<T>*>(sums.values));
          }
          terms.write(reinterpret_cast<Lanes<T>*>(sums.values), channels,
                      T(1) / static_cast<T>(grid.voxels()), grad_weight + group * s.out_channels * s.depth());
        }
      });
}

CINNABAR_CONV3D_INSTANTIATE(float);
CINNABAR_CONV3D_INSTANTIATE(double);

}  // namespace cinnabar::cpu::conv3d_fft
