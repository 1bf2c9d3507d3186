#pragma once

// A channels-last copy of an image or field with a rim of zeros: the form in which the CPU samples and
// scatters. The lanes of a voxel lie together, so the corners x and x + 1 of a cell are one vector load (32
// bytes for a float field) and a trilinear sample is 4 loads and 7 vector operations a lerp; the rim stands
// for the corners outside the grid, so no corner is tested.

#include <cstdint>
#include <cstring>

#include "engine/error.hpp"
#include "engine/storage.hpp"
#include "kernels/parallel.hpp"
#include "kernels/trilinear.hpp"

// Vectors wider than the target's registers are passed in memory; none crosses a translation unit.
#pragma GCC diagnostic ignored "-Wpsabi"

namespace cinnabar::cpu {

/// Where a sample lies: offset of its cell's lower corner in a lattice, and the fractions.
template <class T>
struct Place {
  std::int64_t offset;
  T fraction_x, fraction_y, fraction_z;
};

template <class T, int kLanes>
class Lattice {
 public:
  static constexpr std::int64_t kLaneBytes = kLanes * static_cast<std::int64_t>(sizeof(T));
  /// The lanes of one voxel, and of two neighbours along x.
  typedef T Voxel __attribute__((vector_size(kLaneBytes), aligned(kLaneBytes), may_alias));
  typedef T Pair __attribute__((vector_size(2 * kLaneBytes), aligned(kLaneBytes), may_alias));

  Lattice(std::int64_t depth, std::int64_t height, std::int64_t width)
      : depth_(depth),
        height_(height),
        width_(width),
        storage_(static_cast<std::size_t>((depth + 2) * plane() * kLaneBytes), Device::cpu()),
        values_(static_cast<T*>(storage_.data())) {
    CINNABAR_CHECK((depth + 2) * plane() < (std::int64_t{1} << 31), "lattice", "a grid of ", depth, " x ",
                   height, " x ", width, " voxels is too large");
  }

  std::int64_t depth() const { return depth_; }
  std::int64_t height() const { return height_; }
  std::int64_t width() const { return width_; }
  std::int64_t row() const { return width_ + 2; }
  std::int64_t plane() const { return (height_ + 2) * (width_ + 2); }
  std::int64_t offset(std::int64_t z, std::int64_t y, std::int64_t x) const {
    return (z + 1) * plane() + (y + 1) * row() + x + 1;
  }

  /// Fills the lattice from `channels` planar channels of the grid; further lanes and the rim become zero.
  void pack(const T* planar, int channels) {
    const std::int64_t stride = depth_ * height_ * width_;
    parallel_for((depth_ + 2) * (height_ + 2), kRowGrain, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t line = first; line < last; ++line) {
        const std::int64_t z = line / (height_ + 2) - 1;
        const std::int64_t y = line % (height_ + 2) - 1;
        T* target = values_ + line * row() * kLanes;
        if (z < 0 || z >= depth_ || y < 0 || y >= height_) {
          std::memset(target, 0, static_cast<std::size_t>(row() * kLaneBytes));
          continue;
        }
        const T* source = planar + (z * height_ + y) * width_;
        std::memset(target, 0, kLaneBytes);
        std::memset(target + (width_ + 1) * kLanes, 0, kLaneBytes);
        pack_row(source, stride, channels, target + kLanes);
      }
    });
  }

  void clear() {
    parallel_for(depth_ + 2, 1, [&](std::int64_t first, std::int64_t last) {
      std::memset(values_ + first * plane() * kLanes, 0,
                  static_cast<std::size_t>((last - first) * plane() * kLaneBytes));
    });
  }

  /// Writes the first lanes back as planar channels.
  void unpack(T* planar, int channels) const {
    const std::int64_t stride = depth_ * height_ * width_;
    parallel_for(depth_ * height_, kRowGrain, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t line = first; line < last; ++line) {
        const T* source = values_ + offset(line / height_, line % height_, 0) * kLanes;
        T* target = planar + line * width_;
        for (int c = 0; c < channels; ++c) {
          for (std::int64_t x = 0; x < width_; ++x) target[c * stride + x] = source[x * kLanes + c];
        }
      }
    });
  }

  /// The trilinear sample: linear along z, then y, then x.
  [[gnu::always_inline]] void sample(const Place<T>& at, Voxel& value) const {
    Pair low, high;
    edges(at, low, high);
    blend_x(low + at.fraction_y * (high - low), at.fraction_x, value);
  }

  /// Slopes of the sample along x, y and z.
  [[gnu::always_inline]] void slopes(const Place<T>& at, Voxel (&slope)[3]) const {
    Pair low, high;
    edges(at, low, high);
    Voxel left, right;
    split(low + at.fraction_y * (high - low), left, right);
    slope[0] = right - left;
    blend_x(high - low, at.fraction_x, slope[1]);
    const Pair low_rise = pair(at.offset + plane()) - pair(at.offset);
    const Pair high_rise = pair(at.offset + plane() + row()) - pair(at.offset + row());
    blend_x(low_rise + at.fraction_y * (high_rise - low_rise), at.fraction_x, slope[2]);
  }

  /// Adds value to the corners with their trilinear weights. Corner by corner, because the next voxel of a
  /// smooth field adds to half the same bytes and a wider load would wait for the store.
  [[gnu::always_inline]] void scatter(const Place<T>& at, const Voxel& value) {
    const Voxel right = value * at.fraction_x;
    const Voxel left = value * (T(1) - at.fraction_x);
    scatter_row(at.offset, left, right, (T(1) - at.fraction_y) * (T(1) - at.fraction_z));
    scatter_row(at.offset + row(), left, right, at.fraction_y * (T(1) - at.fraction_z));
    scatter_row(at.offset + plane(), left, right, (T(1) - at.fraction_y) * at.fraction_z);
    scatter_row(at.offset + plane() + row(), left, right, at.fraction_y * at.fraction_z);
  }

  Voxel& voxel(std::int64_t offset) { return *reinterpret_cast<Voxel*>(values_ + offset * kLanes); }
  const Voxel& voxel(std::int64_t offset) const {
    return *reinterpret_cast<const Voxel*>(values_ + offset * kLanes);
  }

 private:
  static constexpr std::int64_t kRowGrain = 64;

  const Pair& pair(std::int64_t offset) const {
    return *reinterpret_cast<const Pair*>(values_ + offset * kLanes);
  }

  void pack_row(const T* source, std::int64_t stride, int channels, T* target) const {
    if (kLanes == 4 && channels == 3) {
      for (std::int64_t x = 0; x < width_; ++x) {
        target[x * kLanes] = source[x];
        target[x * kLanes + 1] = source[stride + x];
        target[x * kLanes + 2] = source[2 * stride + x];
        target[x * kLanes + 3] = T(0);
      }
      return;
    }
    for (int lane = 0; lane < kLanes; ++lane) {
      for (std::int64_t x = 0; x < width_; ++x) {
        target[x * kLanes + lane] = lane < channels ? source[lane * stride + x] : T(0);
      }
    }
  }

  [[gnu::always_inline]] void edges(const Place<T>& at, Pair& low, Pair& high) const {
    const Pair& near_low = pair(at.offset);
    const Pair& near_high = pair(at.offset + row());
    low = near_low + at.fraction_z * (pair(at.offset + plane()) - near_low);
    high = near_high + at.fraction_z * (pair(at.offset + plane() + row()) - near_high);
  }

  [[gnu::always_inline]] static void split(const Pair& both, Voxel& left, Voxel& right) {
    std::memcpy(&left, &both, kLaneBytes);
    std::memcpy(&right, reinterpret_cast<const char*>(&both) + kLaneBytes, kLaneBytes);
  }

  [[gnu::always_inline]] static void blend_x(const Pair& both, T fraction, Voxel& value) {
    Voxel left, right;
    split(both, left, right);
    value = left + fraction * (right - left);
  }

  [[gnu::always_inline]] void scatter_row(std::int64_t offset, const Voxel& left, const Voxel& right,
                                          T weight) {
    voxel(offset) += weight * left;
    voxel(offset + 1) += weight * right;
  }

  std::int64_t depth_, height_, width_;
  Storage storage_;
  T* values_;
};

}  // namespace cinnabar::cpu
