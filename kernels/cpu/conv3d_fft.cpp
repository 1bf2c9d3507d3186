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

/// to += from matrix for kImages images, the matrix with a row of lanes for each of `count` channels read.
template <int kImages, class T>
void multiply_images(const ComplexLanes<T>* matrix, std::int64_t count, const SpectrumBlocks<T>& from,
                     const SpectrumBlocks<T>& to) {
  ComplexLanes<T> sums[kImages];
  for (int i = 0; i < kImages; ++i) sums[i] = to.at(i);
  for (std::int64_t first = 0; first < count; first += kLanes<T>) {
    const T* values = from.lanes_from(first);
    const std::int64_t lanes = std::min(kLanes<T>, count - first);
    for (std::int64_t lane = 0; lane < lanes; ++lane) {
      const ComplexLanes<T> row = matrix[first + lane];
      CINNABAR_UNROLL
      for (int i = 0; i < kImages; ++i) {
        const T* value = values + i * from.lane_stride() + lane;
        sums[i].re += value[0] * row.re;
        sums[i].im += value[0] * row.im;
        sums[i].re -= value[kLanes<T>] * row.im;
        sums[i].im += value[kLanes<T>] * row.re;
      }
    }
  }
  for (int i = 0; i < kImages; ++i) to.at(i) = sums[i];
}

/// The same for all images.
template <class T>
void multiply(const ComplexLanes<T>* matrix, std::int64_t count, std::int64_t batch,
              const SpectrumBlocks<T>& from, const SpectrumBlocks<T>& to) {
  std::int64_t n = 0;
  for (; n + kRows <= batch; n += kRows) {
    multiply_images<kRows>(matrix, count, from.from_image(n), to.from_image(n));
  }
  for (; n < batch; ++n) multiply_images<1>(matrix, count, from.from_image(n), to.from_image(n));
}

/// matrix[r] = sum over images of conj(left) right at the lane of channel r, for `count` channels. Writes up
/// to kRows - 1 more, which are zero.
template <class T>
void multiply_over_images(const SpectrumBlocks<T>& left, const SpectrumBlocks<T>& right, std::int64_t batch,
                          std::int64_t count, ComplexLanes<T>* matrix) {
  for (std::int64_t first = 0; first < count; first += kRows) {
    ComplexLanes<T> sums[kRows] = {};
    const T* scalars = right.lanes_from(first);
    for (std::int64_t n = 0; n < batch; ++n, scalars += right.lane_stride()) {
      const ComplexLanes<T> value = left.at(n);
      CINNABAR_UNROLL
      for (int r = 0; r < kRows; ++r) {
        sums[r].re += scalars[r] * value.re;
        sums[r].im += scalars[kLanes<T> + r] * value.re;
        sums[r].re += scalars[kLanes<T> + r] * value.im;
        sums[r].im -= scalars[r] * value.im;
      }
    }
    for (int r = 0; r < kRows; ++r) matrix[first + r] = sums[r];
  }
}

/// Goes through the frequencies of one chunk of channels, with the terms of the one along D, then H, then W
/// fixed. A thread's own.
template <class T>
class ChunkProducts {
 public:
  ChunkProducts(const SpectrumGrid& grid, const TapTerms<T>& terms, std::int64_t batch)
      : grid_(grid),
        terms_(terms),
        batch_(batch),
        slice_(terms.slice_terms() * kMostRoom),
        row_(terms.axis[2].terms() * kMostRoom),
        matrix_(kMostRoom + kRows) {}

  /// to += from times the transform of the taps, at the frequencies whose part along D is fd.
  void multiply_by(const Lanes<T>* taps, std::int64_t count, std::int64_t fd, const SpectrumBlocks<T>& from,
                   const SpectrumBlocks<T>& to) const {
    const std::int64_t room = room_of(count);
    sum_terms(terms_.axis[0], fd, taps, terms_.slice_terms() * room, slice_.values);
    for (std::int64_t fh = 0; fh < grid_.extent[1]; ++fh) {
      sum_terms(terms_.axis[1], fh, slice_.values, terms_.axis[2].terms() * room, row_.values);
      for (std::int64_t fw = 0; fw < grid_.half(); ++fw) {
        if (grid_.stands_for(fd, fh, fw) == 0) continue;
        sum_terms(terms_.axis[2], fw, row_.values, room, matrix_.values);
        const std::int64_t f = grid_.index(fd, fh, fw);
        multiply(matrix_.values, count, batch_, from.at_frequency(f), to.at_frequency(f));
      }
    }
  }

  /// Adds the products of left and right at those frequencies, summed over images, to the sums for the terms.
  void add_to(Lanes<T>* sums, std::int64_t count, std::int64_t fd, const SpectrumBlocks<T>& left,
              const SpectrumBlocks<T>& right) const {
    const std::int64_t room = room_of(count);
    const std::int64_t row_size = terms_.axis[2].terms() * room, slice_size = terms_.slice_terms() * room;
    std::fill_n(slice_.values, slice_size, ComplexLanes<T>{});
    for (std::int64_t fh = 0; fh < grid_.extent[1]; ++fh) {
      std::fill_n(row_.values, row_size, ComplexLanes<T>{});
      for (std::int64_t fw = 0; fw < grid_.half(); ++fw) {
        const int copies = grid_.stands_for(fd, fh, fw);
        if (copies == 0) continue;
        const std::int64_t f = grid_.index(fd, fh, fw);
        multiply_over_images(left.at_frequency(f), right.at_frequency(f), batch_, count, matrix_.values);
        add_to_terms(terms_.axis[2], fw, static_cast<T>(copies), matrix_.values, room, row_.values);
      }
      add_to_terms(terms_.axis[1], fh, T(1), row_.values, row_size, slice_.values);
    }
    add_to_terms(terms_.axis[0], fd, slice_.values, slice_size, sums);
  }

 private:
  SpectrumGrid grid_;
  const TapTerms<T>& terms_;
  std::int64_t batch_;
  Scratch<ComplexLanes<T>> slice_;   ///< [terms H][terms W][room]
  Scratch<ComplexLanes<T>> row_;     ///< [terms W][room]
  Scratch<ComplexLanes<T>> matrix_;  ///< [room]
};

/// The terms of all weights, a chunk after the other: [groups][blocks written][chunks
/// read][terms][kMostRoom].
template <class T>
class AllTerms {
 public:
  AllTerms(const Conv3dShape& s, const TapTerms<T>& terms, const Cut& cut, const T* weight)
      : cut_(cut),
        size_(terms.terms() * kMostRoom * kLanes<T>),
        values_(s.groups * cut.written_blocks * cut.read_chunks * size_) {
    parallel_for(s.groups * cut.written_blocks * cut.read_chunks, 1,
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t task = begin; task < end; ++task) {
                     const std::int64_t block = task / cut.read_chunks, group = block / cut.written_blocks;
                     terms.read(weight + group * s.out_channels * s.depth(),
                                cut.channels<T>(block % cut.written_blocks, task % cut.read_chunks),
                                reinterpret_cast<Lanes<T>*>(values_.values + task * size_));
                   }
                 });
  }
  const Lanes<T>* of(std::int64_t group, std::int64_t block, std::int64_t chunk) const {
    const std::int64_t index = (group * cut_.written_blocks + block) * cut_.read_chunks + chunk;
    return reinterpret_cast<const Lanes<T>*>(values_.values + index * size_);
  }

 private:
  Cut cut_;
  std::int64_t size_;
  Scratch<T> values_;
};

/// For every frequency: to = from times the weights' transforms.
template <class T>
void multiply_by_weights(const Conv3dShape& s, const SpectrumGrid& grid, const T* weight, bool forward,
                         const Spectra<T>& from, const Spectra<T>& to) {
  const TapTerms<T> terms = terms_of<T>(s, grid, forward ? +1 : -1);
  const Cut cut = cut_of<T>(s, forward);
  const AllTerms<T> all(s, terms, cut, weight);
  // A task owns one block of written channels in a range of frequencies along D. A chunk's taps, 55 KB, are
  // read again for each of them.
  const std::int64_t parts = std::min(kDepthParts, grid.extent[0]), slice = grid.extent[1] * grid.half();
  parallel_for(s.groups * parts * cut.written_blocks, 1, [&](std::int64_t first, std::int64_t last) {
    const ChunkProducts<T> products(grid, terms, s.batch);
    for (std::int64_t task = first; task < last; ++task) {
      const std::int64_t block = task % cut.written_blocks, part = task / cut.written_blocks % parts;
      const std::int64_t group = task / cut.written_blocks / parts;
      const std::int64_t begin = grid.extent[0] * part / parts, end = grid.extent[0] * (part + 1) / parts;
      const SpectrumBlocks<T> mine = to.blocks_from(group, block * kLanes<T>);
      for (std::int64_t n = 0; n < s.batch; ++n) {
        std::fill_n(&mine.at(n) + begin * slice, (end - begin) * slice, ComplexLanes<T>{});
      }
      for (std::int64_t chunk = 0; chunk < cut.read_chunks; ++chunk) {
        const std::int64_t count = cut.channels<T>(block, chunk).read_count;
        for (std::int64_t fd = begin; fd < end; ++fd) {
          products.multiply_by(all.of(group, block, chunk), count, fd,
                               from.blocks_from(group, chunk * kReadAtOnce), mine);
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
        const ChunkProducts<T> products(grid, terms, s.batch);
        const Scratch<T> sums(terms.terms() * kMostRoom * kLanes<T>);
        auto* lanes = reinterpret_cast<Lanes<T>*>(sums.values);
        for (std::int64_t task = first; task < last; ++task) {
          const std::int64_t chunk = task % cut.read_chunks,
                             block = task / cut.read_chunks % cut.written_blocks;
          const std::int64_t group = task / cut.read_chunks / cut.written_blocks;
          const auto channels = cut.channels<T>(block, chunk);
          std::fill_n(sums.values, terms.terms() * kMostRoom * kLanes<T>, T(0));
          for (std::int64_t fd = 0; fd < grid.extent[0]; ++fd) {
            products.add_to(lanes, channels.read_count, fd, out.blocks_from(group, block * kLanes<T>),
                            in.blocks_from(group, chunk * kReadAtOnce));
          }
          terms.write(lanes, channels, T(1) / static_cast<T>(grid.voxels()),
                      grad_weight + group * s.out_channels * s.depth());
        }
      });
}

CINNABAR_CONV3D_INSTANTIATE(float);
CINNABAR_CONV3D_INSTANTIATE(double);

}  // namespace cinnabar::cpu::conv3d_fft
