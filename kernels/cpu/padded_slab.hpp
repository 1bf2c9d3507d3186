#pragma once

// The inputs of convolutions with stride 1, padded, row behind row (conv3d_direct.cpp).

#include <algorithm>
#include <array>

#include "engine/divide_up.hpp"
#include "kernels/conv3d.hpp"
#include "kernels/cpu/lanes.hpp"
#include "kernels/cpu/scratch.hpp"

namespace cinnabar::cpu::conv3d_direct {

inline constexpr std::int64_t kSlabBytes =
    1 << 18;  // of the copied rows, so that they stay in the second cache

/// out[n, o, p] = sum over c, k of weight[o, c, k] in[n, c, p + k - padding]: what forward and backward_input
/// both are. Channels are those of one group, axes D, H, W.
struct Correlation {
  std::int64_t batch, groups, read, written;
  std::array<std::int64_t, 3> in, out, kernel, padding;

  std::int64_t in_volume() const { return in[0] * in[1] * in[2]; }
  std::int64_t out_volume() const { return out[0] * out[1] * out[2]; }
  std::int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  std::int64_t pitch() const { return out[2] + kernel[2] - 1; }  ///< of a padded row
};

inline Correlation forward_of(const Conv3dShape& s) {
  Correlation c{s.batch, s.groups, s.in_channels, s.out_channels, {}, {}, {}, {}};
  for (std::size_t i = 0; i < 3; ++i) {
    const Conv3dAxis& axis = s.axis[i];
    c.in[i] = axis.in;
    c.out[i] = axis.out;
    c.kernel[i] = axis.kernel;
    c.padding[i] = axis.padding;
  }
  return c;
}

inline Correlation backward_of(const Conv3dShape& s) {
  Correlation c = forward_of(s);
  std::swap(c.read, c.written);
  std::swap(c.in, c.out);
  for (std::size_t i = 0; i < 3; ++i) c.padding[i] = c.kernel[i] - 1 - c.padding[i];
  return c;
}

/// Output rows [first_row, first_row + rows) of `planes` planes from `plane` on.
struct Region {
  std::int64_t plane, planes, first_row, rows;
};

/// How outputs are cut into regions; the same for every number of threads.
struct Cut {
  std::int64_t planes, rows;   ///< of a region
  std::int64_t depths, bands;  ///< regions of a volume along D and H
  Cut(const Correlation& c, std::int64_t channels, std::int64_t element_bytes, std::int64_t most_planes) {
    const std::int64_t row_bytes = channels * c.pitch() * element_bytes;
    planes = std::min(most_planes, c.out[0]);
    const std::int64_t read_planes = planes + c.kernel[0] - 1;
    const std::int64_t fit = kSlabBytes / (row_bytes * read_planes) - (c.kernel[1] - 1);
    rows = std::clamp<std::int64_t>(fit, std::min<std::int64_t>(4, c.out[1]), c.out[1]);
    rows = divide_up(c.out[1], divide_up(c.out[1], rows));
    depths = divide_up(c.out[0], planes);
    bands = divide_up(c.out[1], rows);
  }
  std::int64_t regions() const { return depths * bands; }
  Region region(const Correlation& c, std::int64_t index) const {
    const std::int64_t plane = index / bands * planes, row = index % bands * rows;
    return {plane, std::min(planes, c.out[0] - plane), row, std::min(rows, c.out[1] - row)};
  }
};

/// The padded rows of `channels` channels that a region reads: [channels][planes][rows][pitch].
template <class T>
class Slab {
 public:
  /// `overshoot`: how many numbers beyond the last row may be read for the last positions. They count for
  /// nothing, but are numbers.
  Slab(const Correlation& c, const Cut& cut, std::int64_t channels, std::int64_t overshoot)
      : c_(c), values_(size(c, cut, channels, overshoot)) {
    std::fill_n(values_.values, size(c, cut, channels, overshoot), T(0));
  }

  void read(const T* input, const Region& region, std::int64_t channels) {
    planes_ = region.planes + c_.kernel[0] - 1;
    rows_ = region.rows + c_.kernel[1] - 1;
    T* row = values_.values;
    for (std::int64_t channel = 0; channel < channels; ++channel, input += c_.in_volume()) {
      for (std::int64_t plane = 0; plane < planes_; ++plane) {
        const std::int64_t z = region.plane + plane - c_.padding[0];
        for (std::int64_t i = 0; i < rows_; ++i, row += c_.pitch()) {
          const std::int64_t y = region.first_row + i - c_.padding[1];
          const bool inside = z >= 0 && z < c_.in[0] && y >= 0 && y < c_.in[1];
          read_row(inside ? input + (z * c_.in[1] + y) * c_.in[2] : nullptr, row);
        }
      }
    }
  }
  /// The row of channel c that holds the inputs of output row 0 of the region's plane `plane` for the taps
  /// (kd, kh): those follow along W.
  const T* row(std::int64_t channel, std::int64_t plane, std::int64_t kh) const {
    return values_.values + ((channel * planes_ + plane) * rows_ + kh) * c_.pitch();
  }

 private:
  static std::int64_t size(const Correlation& c, const Cut& cut, std::int64_t channels,
                           std::int64_t overshoot) {
    return channels * (cut.planes + c.kernel[0] - 1) * (cut.rows + c.kernel[1] - 1) * c.pitch() + overshoot +
           c.kernel[2];
  }
  void read_row(const T* input, T* row) const {
    const std::int64_t before = input == nullptr ? c_.pitch() : std::min(c_.padding[2], c_.pitch());
    const std::int64_t count = std::min(c_.in[2], c_.pitch() - before);
    std::fill_n(row, before, T(0));
    if (before < c_.pitch()) std::copy_n(input, count, row + before);
    std::fill(row + before + (before < c_.pitch() ? count : 0), row + c_.pitch(), T(0));
  }

  const Correlation& c_;
  std::int64_t planes_ = 0, rows_ = 0;
  Scratch<T> values_;
};

}  // namespace cinnabar::cpu::conv3d_direct
