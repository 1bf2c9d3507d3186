// Convolution as products of spectra: one transform of the whole padded volume per image and channel (FFTW),
// one complex matrix product over the channels per frequency (BLAS), one transform back: Mathieu, Henaff and
// LeCun, "Fast training of convolutional networks through FFTs", 2014. Circular transforms of extent in +
// padding are enough: the zeros after the input serve as its padding on both sides.
//
// The spectra of the weights would be in_channels x out_channels volumes. They are never stored: a kernel has
// few taps, so its spectrum at one frequency is a short sum, taken axis by axis. For a fixed frequency along
// D the taps along D are summed first, for a fixed one along H those along H, and then those along W: at
// extent 3 about 3 products a frequency and pair of channels. The weight's gradient runs the same way
// backwards.

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "kernels/cpu/blas.hpp"
#include "kernels/cpu/conv3d_backends.hpp"
#include "kernels/cpu/scratch.hpp"
#include "kernels/cpu/spectra.hpp"
#include "kernels/parallel.hpp"

namespace cinnabar::cpu::conv3d_fft {

namespace {

constexpr std::int64_t kPairsAtOnce = 4096;  // pairs of channels a task folds at the end of backward_weight

/// In and padding on every axis, also enough for the output and the taps.
SpectrumGrid grid_of(const Conv3dShape& s) {
  SpectrumGrid grid;
  for (int i = 0; i < 3; ++i) {
    const Conv3dAxis& axis = s.axis[i];
    grid.extent[i] = next_smooth_number(std::max({axis.in + axis.padding, axis.out, axis.kernel}));
  }
  return grid;
}

/// Factors e^(i sign 2 pi f (k - shift) / n) of one axis.
template <class T>
class Phases {
 public:
  Phases(std::int64_t extent, std::int64_t kernel, std::int64_t shift, int sign) : kernel_(kernel) {
    for (std::int64_t f = 0; f < extent; ++f) {
      for (std::int64_t k = 0; k < kernel; ++k) {
        const std::int64_t turn = ((f * (k - shift)) % extent + extent) % extent;
        const double angle =
            sign * 2.0 * std::numbers::pi * static_cast<double>(turn) / static_cast<double>(extent);
        values_.emplace_back(static_cast<T>(std::cos(angle)), static_cast<T>(std::sin(angle)));
      }
    }
  }
  std::complex<T> at(std::int64_t frequency, std::int64_t k) const {
    return values_[static_cast<std::size_t>(frequency * kernel_ + k)];
  }

 private:
  std::int64_t kernel_;
  std::vector<std::complex<T>> values_;
};

/// Complex numbers for all pairs of channels, real and imaginary parts apart, which vectorises.
template <class T>
struct Split {
  T* re;
  T* im;
};

/// to (+)= factor * from over `count` pairs.
template <class T>
void add_turned(Split<T> from, std::complex<T> factor, bool assign, std::int64_t count, Split<T> to) {
  const T c = factor.real(), s = factor.imag();
  if (assign) {
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) {
      to.re[i] = c * from.re[i] - s * from.im[i];
      to.im[i] = c * from.im[i] + s * from.re[i];
    }
  } else {
#pragma omp simd
    for (std::int64_t i = 0; i < count; ++i) {
      to.re[i] += c * from.re[i] - s * from.im[i];
      to.im[i] += c * from.im[i] + s * from.re[i];
    }
  }
}

/// The spectra of one group's weights, frequency by frequency.
template <class T>
class WeightSpectra {
 public:
  /// `taps` is [kD][kH][kW][pairs].
  WeightSpectra(const Conv3dShape& s, const Phases<T> (&phases)[3], const T* taps)
      : pairs_(s.out_channels * s.in_channels),
        phases_(phases),
        taps_(taps),
        plane_(2 * s.axis[1].kernel * s.axis[2].kernel * pairs_),
        row_(2 * s.axis[2].kernel * pairs_) {
    for (int i = 0; i < 3; ++i) kernel_[i] = s.axis[i].kernel;
  }

  /// Sums over the taps along D for frequency `fd`.
  void fix_depth(std::int64_t fd) {
    const std::int64_t size = kernel_[1] * kernel_[2] * pairs_;
    const Split<T> to = plane(0, 0);
    for (std::int64_t k = 0; k < kernel_[0]; ++k) {
      const std::complex<T> phase = phases_[0].at(fd, k);
      const T c = phase.real(), s = phase.imag();
      const T* from = taps_ + k * size;
      for (std::int64_t row = 0; row < size; row += pairs_) {
        T* re = to.re + row;
        T* im = to.im + row;
        if (k == 0) {
          std::fill_n(re, pairs_, T(0));
          std::fill_n(im, pairs_, T(0));
        }
#pragma omp simd
        for (std::int64_t i = 0; i < pairs_; ++i) {
          re[i] += c * from[row + i];
          im[i] += s * from[row + i];
        }
      }
    }
  }

  void fix_height(std::int64_t fh) {
    for (std::int64_t kw = 0; kw < kernel_[2]; ++kw) {
      for (std::int64_t kh = 0; kh < kernel_[1]; ++kh) {
        add_turned(plane(kh, kw), phases_[1].at(fh, kh), kh == 0, pairs_, row(kw));
      }
    }
  }

  /// Writes the matrix [out_channels][in_channels] of frequency `fw`.
  void fix_width(std::int64_t fw, std::complex<T>* matrix) const {
    T* values = reinterpret_cast<T*>(matrix);
    for (std::int64_t kw = 0; kw < kernel_[2]; ++kw) {
      const std::complex<T> phase = phases_[2].at(fw, kw);
      const T c = phase.real(), s = phase.imag();
      const Split<T> from = row(kw);
      if (kw == 0) std::fill_n(values, 2 * pairs_, T(0));
#pragma omp simd
      for (std::int64_t i = 0; i < pairs_; ++i) {
        values[2 * i] += c * from.re[i] - s * from.im[i];
        values[2 * i + 1] += c * from.im[i] + s * from.re[i];
      }
    }
  }

 private:
  Split<T> plane(std::int64_t kh, std::int64_t kw) const {
    T* re = plane_.values + (kh * kernel_[2] + kw) * pairs_;
    return {re, re + kernel_[1] * kernel_[2] * pairs_};
  }
  Split<T> row(std::int64_t kw) const {
    T* re = row_.values + kw * pairs_;
    return {re, re + kernel_[2] * pairs_};
  }

  std::int64_t pairs_;
  const Phases<T> (&phases_)[3];
  const T* taps_;
  std::int64_t kernel_[3];
  Scratch<T> plane_;
  Scratch<T> row_;
};

/// For every frequency: to = from times the weights' matrices, transposed where `transpose`. `sign` is that
/// of the weights' transform.
template <class T>
void multiply_by_weights(const Conv3dShape& s, const SpectrumGrid& grid, const T* weight, int sign,
                         bool transpose, const Spectra<T>& from, const Spectra<T>& to) {
  const std::int64_t pairs = s.out_channels * s.in_channels, taps = s.taps();
  const Scratch<T> by_tap(s.groups * taps * pairs);
  parallel_for(s.groups * taps, 1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t task = first; task < last; ++task) {
      const T* group = weight + task / taps * pairs * taps + task % taps;
      for (std::int64_t pair = 0; pair < pairs; ++pair)
        by_tap.values[task * pairs + pair] = group[pair * taps];
    }
  });
  const Phases<T> phases[3] = {{grid.extent[0], s.axis[0].kernel, 0, sign},
                               {grid.extent[1], s.axis[1].kernel, 0, sign},
                               {grid.extent[2], s.axis[2].kernel, 0, sign}};
  const int batch = blas_extent("conv3d", s.batch);
  const int rows = blas_extent("conv3d", s.out_channels), columns = blas_extent("conv3d", s.in_channels);
  const int depth = transpose ? columns : rows, width = transpose ? rows : columns;
  const int row_in = blas_extent("conv3d", s.groups * depth),
            row_out = blas_extent("conv3d", s.groups * width);
  parallel_for(s.groups * grid.extent[0], 1, [&](std::int64_t first, std::int64_t last) {
    const Scratch<std::complex<T>> matrix(pairs);
    for (std::int64_t task = first; task < last; ++task) {
      const std::int64_t group = task / grid.extent[0], fd = task % grid.extent[0];
      WeightSpectra<T> spectra(s, phases, by_tap.values + group * taps * pairs);
      spectra.fix_depth(fd);
      for (std::int64_t fh = 0; fh < grid.extent[1]; ++fh) {
        spectra.fix_height(fh);
        for (std::int64_t fw = 0; fw < grid.half(); ++fw) {
          spectra.fix_width(fw, matrix.values);
          const std::int64_t f = (fd * grid.extent[1] + fh) * grid.half() + fw;
          gemm(CblasNoTrans, transpose ? CblasTrans : CblasNoTrans, batch, width, depth,
               from.at(f) + group * depth, row_in, matrix.values, columns, std::complex<T>(0),
               to.at(f) + group * width, row_out);
        }
      }
    }
  });
}

}  // namespace

template <class T>
void forward(const Conv3dShape& s, const T* input, const T* weight, const EpilogueMath<T>& epilogue,
             T* output) {
  use_one_blas_thread();
  const SpectrumGrid grid = grid_of(s);
  Spectra<T> in(grid, s.batch, s.groups * s.in_channels);
  Spectra<T> out(grid, s.batch, s.groups * s.out_channels);
  in.read(input, {s.axis[0].in, s.axis[1].in, s.axis[2].in});
  // A correlation: the conjugate spectrum of the weights. Output o is the circular result at o - padding.
  multiply_by_weights(s, grid, weight, +1, true, in, out);
  std::int64_t shift[3];
  for (int i = 0; i < 3; ++i) shift[i] = grid.extent[i] - s.axis[i].padding;
  out.write(output, {s.axis[0].out, s.axis[1].out, s.axis[2].out}, shift, epilogue);
}

template <class T>
void backward_input(const Conv3dShape& s, const T* grad_output, const T* weight,
                    const EpilogueMath<T>& epilogue, T* grad_input) {
  use_one_blas_thread();
  const SpectrumGrid grid = grid_of(s);
  Spectra<T> out(grid, s.batch, s.groups * s.out_channels);
  Spectra<T> in(grid, s.batch, s.groups * s.in_channels);
  out.read(grad_output, {s.axis[0].out, s.axis[1].out, s.axis[2].out});
  multiply_by_weights(s, grid, weight, -1, false, out, in);
  in.write(grad_input, {s.axis[0].in, s.axis[1].in, s.axis[2].in},
           {s.axis[0].padding, s.axis[1].padding, s.axis[2].padding}, epilogue);
}

template <class T>
void backward_weight(const Conv3dShape& s, const T* grad_output, const T* input, T* grad_weight) {
  use_one_blas_thread();
  const SpectrumGrid grid = grid_of(s);
  Spectra<T> in(grid, s.batch, s.groups * s.in_channels);
  Spectra<T> out(grid, s.batch, s.groups * s.out_channels);
  in.read(input, {s.axis[0].in, s.axis[1].in, s.axis[2].in});
  out.read(grad_output, {s.axis[0].out, s.axis[1].out, s.axis[2].out});

  // Tap k of the gradient is the circular result at k - padding.
  const Phases<T> phases[3] = {{grid.extent[0], s.axis[0].kernel, s.axis[0].padding, +1},
                               {grid.extent[1], s.axis[1].kernel, s.axis[1].padding, +1},
                               {grid.extent[2], s.axis[2].kernel, s.axis[2].padding, +1}};
  const std::int64_t pairs = s.out_channels * s.in_channels, kw_count = s.axis[2].kernel;
  const std::int64_t plane =
      s.axis[1].kernel * kw_count * pairs;  // real parts; as many imaginary ones follow
  const Scratch<T> planes(s.groups * grid.extent[0] * 2 * plane);
  const int batch = blas_extent("conv3d", s.batch);
  const int rows = blas_extent("conv3d", s.out_channels), columns = blas_extent("conv3d", s.in_channels);
  const int all_rows = blas_extent("conv3d", s.groups * rows),
            all_columns = blas_extent("conv3d", s.groups * columns);
  parallel_for(s.groups * grid.extent[0], 1, [&](std::int64_t first, std::int64_t last) {
    const Scratch<std::complex<T>> matrix(pairs);
    const Scratch<T> row(2 * kw_count * pairs);
    for (std::int64_t task = first; task < last; ++task) {
      const std::int64_t group = task / grid.extent[0], fd = task % grid.extent[0];
      T* mine = planes.values + task * 2 * plane;
      for (std::int64_t fh = 0; fh < grid.extent[1]; ++fh) {
        for (std::int64_t fw = 0; fw < grid.half(); ++fw) {
          const std::int64_t f = (fd * grid.extent[1] + fh) * grid.half() + fw;
          gemm(CblasConjTrans, CblasNoTrans, rows, columns, batch, out.at(f) + group * rows, all_rows,
               in.at(f) + group * columns, all_columns, std::complex<T>(0), matrix.values, columns);
          // Only half of the frequencies along W are stored; the others are conjugates.
          const T copies = fw == 0 || 2 * fw == grid.extent[2] ? T(1) : T(2);
          const T* values = reinterpret_cast<const T*>(matrix.values);
          for (std::int64_t kw = 0; kw < kw_count; ++kw) {
            const std::complex<T> phase = phases[2].at(fw, kw);
            const T cosine = copies * phase.real(), sine = copies * phase.imag();
            T* re = row.values + kw * pairs;
            T* im = re + kw_count * pairs;
            if (fw == 0) {
              std::fill_n(re, pairs, T(0));
              std::fill_n(im, pairs, T(0));
            }
#pragma omp simd
            for (std::int64_t i = 0; i < pairs; ++i) {
              re[i] += cosine * values[2 * i] - sine * values[2 * i + 1];
              im[i] += cosine * values[2 * i + 1] + sine * values[2 * i];
            }
          }
        }
        for (std::int64_t kh = 0; kh < s.axis[1].kernel; ++kh) {
          for (std::int64_t kw = 0; kw < kw_count; ++kw) {
            T* from = row.values + kw * pairs;
            T* to = mine + (kh * kw_count + kw) * pairs;
            add_turned<T>({from, from + kw_count * pairs}, phases[1].at(fh, kh), fh == 0, pairs,
                          {to, to + plane});
          }
        }
      }
    }
  });

  const T scale = T(1) / static_cast<T>(grid.voxels());
  const std::int64_t taps_in_plane = s.axis[1].kernel * kw_count;
  parallel_for(s.groups * pairs, kPairsAtOnce, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      const std::int64_t group = i / pairs, pair = i % pairs;
      for (std::int64_t kd = 0; kd < s.axis[0].kernel; ++kd) {
        for (std::int64_t tap = 0; tap < taps_in_plane; ++tap) {
          T sum = T(0);
          for (std::int64_t fd = 0; fd < grid.extent[0]; ++fd) {
            const std::complex<T> phase = phases[0].at(fd, kd);
            const T* from = planes.values + (group * grid.extent[0] + fd) * 2 * plane + tap * pairs + pair;
            sum += phase.real() * from[0] - phase.imag() * from[plane];
          }
          grad_weight[i * s.taps() + kd * taps_in_plane + tap] = scale * sum;
        }
      }
    }
  });
}

CINNABAR_CONV3D_INSTANTIATE(float);
CINNABAR_CONV3D_INSTANTIATE(double);

}  // namespace cinnabar::cpu::conv3d_fft
