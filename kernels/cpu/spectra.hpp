#pragma once

// Fourier transforms of batches of volumes with channels, laid out for products over the channels.

#include <algorithm>
#include <complex>
#include <map>
#include <mutex>
#include <tuple>

#include "kernels/cpu/blas.hpp"
#include "kernels/cpu/epilogue_row.hpp"
#include "kernels/cpu/fftw.hpp"
#include "kernels/cpu/scratch.hpp"
#include "kernels/parallel.hpp"

namespace cinnabar::cpu {

/// Channels of one image transformed together: 8 complex floats of a frequency are a cache line.
inline constexpr std::int64_t kSpectraAtOnce = 8;

/// Extents of the circular transforms.
struct SpectrumGrid {
  std::int64_t extent[3];

  std::int64_t half() const { return extent[2] / 2 + 1; }
  std::int64_t voxels() const { return extent[0] * extent[1] * extent[2]; }
  std::int64_t frequencies() const { return extent[0] * extent[1] * half(); }
  /// Room for one spectrum, in whole cache lines so that FFTW finds every one aligned alike.
  std::int64_t room() const { return (frequencies() + 7) / 8 * 8; }
};

template <class T>
struct SpectrumPlans {
  typename Fftw<T>::Plan forward;
  typename Fftw<T>::Plan backward;
};

/// Made once per grid and kept for the process; FFTW_ESTIMATE, so that the bits do not depend on timings.
template <class T>
const SpectrumPlans<T>& spectrum_plans(const SpectrumGrid& grid) {
  using F = Fftw<T>;
  static std::mutex mutex;
  static std::map<std::tuple<std::int64_t, std::int64_t, std::int64_t>, SpectrumPlans<T>> cache;
  const std::lock_guard lock(mutex);
  const auto key = std::make_tuple(grid.extent[0], grid.extent[1], grid.extent[2]);
  if (const auto found = cache.find(key); found != cache.end()) return found->second;
  int extent[3];
  for (int i = 0; i < 3; ++i) extent[i] = blas_extent("spectra", grid.extent[i]);
  const Scratch<T> real(grid.voxels());
  const Scratch<std::complex<T>> complex(grid.room());
  auto* half = reinterpret_cast<typename F::Complex*>(complex.values);
  SpectrumPlans<T> plans;
  plans.forward = F::many_r2c(3, extent, 1, real.values, nullptr, 1, 0, half, nullptr, 1, 0, FFTW_ESTIMATE);
  plans.backward = F::many_c2r(3, extent, 1, half, nullptr, 1, 0, real.values, nullptr, 1, 0, FFTW_ESTIMATE);
  CINNABAR_CHECK(plans.forward != nullptr && plans.backward != nullptr, "spectra", "FFTW has no plan for ",
                 extent[0], " x ", extent[1], " x ", extent[2]);
  return cache.emplace(key, plans).first->second;
}

/// Spectra of all images and channels with the frequency outermost: [frequencies][batch][channels], so that
/// the values of one frequency are a matrix.
template <class T>
class Spectra {
 public:
  Spectra(const SpectrumGrid& grid, std::int64_t batch, std::int64_t channels)
      : grid_(grid), batch_(batch), channels_(channels), values_(grid.frequencies() * batch * channels) {}

  std::complex<T>* at(std::int64_t frequency) const {
    return values_.values + frequency * batch_ * channels_;
  }

  /// Transforms volumes [batch, channels, d, h, w], zeros beyond them.
  void read(const T* images, const std::int64_t (&extent)[3]) {
    const SpectrumPlans<T>& plans = spectrum_plans<T>(grid_);
    for_each_block(
        [&](std::int64_t n, std::int64_t first, std::int64_t count, T* real, std::complex<T>* spectra) {
          for (std::int64_t c = 0; c < count; ++c) {
            const T* from = images + (n * channels_ + first + c) * extent[0] * extent[1] * extent[2];
            std::fill_n(real, grid_.voxels(), T(0));
            for (std::int64_t d = 0; d < extent[0]; ++d) {
              for (std::int64_t h = 0; h < extent[1]; ++h, from += extent[2]) {
                std::copy_n(from, extent[2], real + (d * grid_.extent[1] + h) * grid_.extent[2]);
              }
            }
            Fftw<T>::run_r2c(plans.forward, real,
                             reinterpret_cast<typename Fftw<T>::Complex*>(spectra + c * grid_.room()));
          }
          for (std::int64_t f = 0; f < grid_.frequencies(); ++f) {
            std::complex<T>* to = at(f) + n * channels_ + first;
            for (std::int64_t c = 0; c < count; ++c) to[c] = spectra[c * grid_.room() + f];
          }
        });
  }

  /// Transforms back to volumes [batch, channels, d, h, w] and applies an epilogue; voxel i is that at i +
  /// shift (mod extent).
  void write(T* images, const std::int64_t (&extent)[3], const std::int64_t (&shift)[3],
             const EpilogueMath<T>& after) const {
    const SpectrumPlans<T>& plans = spectrum_plans<T>(grid_);
    const T scale = T(1) / static_cast<T>(grid_.voxels());
    for_each_block([&](std::int64_t n, std::int64_t first, std::int64_t count, T* real,
                       std::complex<T>* spectra) {
      for (std::int64_t f = 0; f < grid_.frequencies(); ++f) {
        const std::complex<T>* from = at(f) + n * channels_ + first;
        for (std::int64_t c = 0; c < count; ++c) spectra[c * grid_.room() + f] = from[c];
      }
      for (std::int64_t c = 0; c < count; ++c) {
        Fftw<T>::run_c2r(plans.backward,
                         reinterpret_cast<typename Fftw<T>::Complex*>(spectra + c * grid_.room()), real);
        const std::int64_t volume = extent[0] * extent[1] * extent[2];
        const std::int64_t index = (n * channels_ + first + c) * volume;
        T* to = images + index;
        for (std::int64_t d = 0; d < extent[0]; ++d) {
          const std::int64_t z = (d + shift[0]) % grid_.extent[0];
          for (std::int64_t h = 0; h < extent[1]; ++h, to += extent[2]) {
            const T* row = real + (z * grid_.extent[1] + (h + shift[1]) % grid_.extent[1]) * grid_.extent[2];
            for (std::int64_t w = 0, x = shift[2] % grid_.extent[2]; w < extent[2]; ++w) {
              to[w] = scale * row[x];
              if (++x == grid_.extent[2]) x = 0;
            }
          }
        }
        epilogue_row(after, first + c, index, volume, images + index, images + index);
      }
    });
  }

 private:
  /// Calls block(n, first channel, channels, real scratch, spectra scratch) for all images in parallel.
  template <class Block>
  void for_each_block(const Block& block) const {
    const std::int64_t blocks = (channels_ + kSpectraAtOnce - 1) / kSpectraAtOnce;
    parallel_for(batch_ * blocks, 1, [&](std::int64_t first_task, std::int64_t last_task) {
      const Scratch<T> real(grid_.voxels());
      const Scratch<std::complex<T>> spectra(kSpectraAtOnce * grid_.room());
      for (std::int64_t task = first_task; task < last_task; ++task) {
        const std::int64_t first = task % blocks * kSpectraAtOnce;
        block(task / blocks, first, std::min(kSpectraAtOnce, channels_ - first), real.values, spectra.values);
      }
    });
  }

  SpectrumGrid grid_;
  std::int64_t batch_;
  std::int64_t channels_;
  Scratch<std::complex<T>> values_;
};

}  // namespace cinnabar::cpu
