#pragma once

#include <algorithm>
#include <array>

#include "kernels/cpu/epilogue_row.hpp"
#include "kernels/cpu/line_transform.hpp"
#include "kernels/cpu/scratch.hpp"
#include "kernels/parallel.hpp"

namespace cinnabar::cpu {

/// Extents of circular transforms, D, H, W.
struct SpectrumGrid {
  std::array<std::int64_t, 3> extent;

  std::int64_t half() const { return extent[2] / 2 + 1; }
  std::int64_t voxels() const { return extent[0] * extent[1] * extent[2]; }
  std::int64_t frequencies() const { return extent[0] * extent[1] * half(); }

  std::int64_t index(std::int64_t fd, std::int64_t fh, std::int64_t fw) const {
    return (fd * extent[1] + fh) * half() + fw;
  }
  /// The frequency that is minus this one, where both are kept.
  std::int64_t opposite(std::int64_t fd, std::int64_t fh, std::int64_t fw) const {
    return index(fd == 0 ? 0 : extent[0] - fd, fh == 0 ? 0 : extent[1] - fh, fw);
  }
  /// How many frequencies of the whole transform this one stands for: itself and its conjugate at minus it; 0
  /// where that one comes first.
  int stands_for(std::int64_t fd, std::int64_t fh, std::int64_t fw) const {
    if (fw != 0 && 2 * fw != extent[2]) return 2;
    const std::int64_t here = index(fd, fh, fw), there = opposite(fd, fh, fw);
    return there < here ? 0 : there == here ? 1 : 2;
  }
};

/// A batch of volumes [batch, groups x channels, d, h, w] and how they lie in the grid: voxel i at
/// i + shift (mod extent), 0 <= shift < extent.
struct VolumeBatch {
  std::int64_t batch, groups, channels;
  std::array<std::int64_t, 3> extent;
  std::array<std::int64_t, 3> shift;
};

/// Blocks of channels, consecutive ones of consecutive images, at one frequency; the next one is one further.
template <class T>
struct SpectrumBlocks {
  ComplexLanes<T>* first;
  std::int64_t block_stride, image_stride;

  ComplexLanes<T>& at(std::int64_t n) const { return first[n * image_stride]; }
  /// The real parts of a block from channel `c` on, whose imaginary parts lie kLanes further.
  const T* lanes_from(std::int64_t c) const {
    return reinterpret_cast<const T*>(first + c / kLanes<T> * block_stride) + c % kLanes<T>;
  }
  /// Distance of the images in numbers.
  std::int64_t lane_stride() const { return image_stride * 2 * kLanes<T>; }
  SpectrumBlocks at_frequency(std::int64_t f) const { return {first + f, block_stride, image_stride}; }
  SpectrumBlocks from_image(std::int64_t n) const {
    return {first + n * image_stride, block_stride, image_stride};
  }
};

/// The Fourier transforms of such a batch: [batch][groups][blocks of channels][fd][fh][fw]. Only half of the
/// frequencies along W are kept; the others are their conjugates.
template <class T>
class Spectra {
 public:
  Spectra(const SpectrumGrid& grid, const VolumeBatch& volumes)
      : grid_(grid),
        volumes_(volumes),
        blocks_(lane_blocks<T>(volumes.channels)),
        depth_(grid.extent[0]),
        height_(grid.extent[1]),
        width_(grid.extent[2]),
        values_(volumes.batch * image_stride()) {}

  /// The blocks of a group from channel `c` on at frequency 0.
  SpectrumBlocks<T> blocks_from(std::int64_t group, std::int64_t c) const {
    return {values_.values + (group * blocks_ + c / kLanes<T>)*block_stride(), block_stride(),
            image_stride()};
  }

  /// Transforms the volumes.
  void read(const T* images) {
    for_each_block([&](const Block& block, const Room& room) {
      read_rows(images + block.first_voxel, block, room);
      const std::int64_t half = grid_.half(), slice = grid_.extent[1] * half;
      for (std::int64_t d = 0; d < extent(0); ++d) {
        transform_lines(height_, -1, block.values + place(0, d) * slice, half, half, room);
      }
      transform_lines(depth_, -1, block.values, slice, slice, room);
    });
  }
  /// Transforms back in place, ended by an epilogue. Frequencies that stand for none need no values.
  void write(T* images, const EpilogueMath<T>& after) const {
    for_each_block([&](const Block& block, const Room& room) {
      const std::int64_t half = grid_.half(), slice = grid_.extent[1] * half;
      fill_conjugates(block);
      transform_lines(depth_, +1, block.values, slice, slice, room);
      for (std::int64_t d = 0; d < extent(0); ++d) {
        transform_lines(height_, +1, block.values + place(0, d) * slice, half, half, room);
      }
      write_rows(block, images + block.first_voxel, room);
      const std::int64_t volume = extent(0) * extent(1) * extent(2);
      for (std::int64_t c = 0; c < block.channels; ++c) {
        const std::int64_t first = block.first_voxel + c * volume;
        epilogue_row(after, block.channel + c, first, volume, images + first, images + first);
      }
    });
  }

 private:
  /// A row more than a volume has, so that blocks do not fall into the same cache sets.
  std::int64_t block_stride() const { return grid_.frequencies() + grid_.half(); }
  std::int64_t image_stride() const { return volumes_.groups * blocks_ * block_stride(); }

  /// One block of channels of one image.
  struct Block {
    std::int64_t channel, channels;
    std::int64_t first_voxel;  ///< in the images
    ComplexLanes<T>* values;
  };

  /// Working memory of a thread.
  struct Room {
    explicit Room(const SpectrumGrid& grid)
        : line(largest(grid)), work(largest(grid)), row(grid.extent[2] * kLanes<T>) {}
    static std::int64_t largest(const SpectrumGrid& grid) {
      return std::max({grid.extent[0], grid.extent[1], grid.extent[2]});
    }
    Lanes<T>* real() const { return reinterpret_cast<Lanes<T>*>(row.values); }
    Scratch<ComplexLanes<T>> line, work;
    Scratch<T> row;
  };

  template <class Visit>
  void for_each_block(const Visit& visit) const {
    parallel_for(volumes_.batch * volumes_.groups * blocks_, 1, [&](std::int64_t first, std::int64_t last) {
      const Room room(grid_);
      const std::int64_t volume = extent(0) * extent(1) * extent(2);
      for (std::int64_t task = first; task < last; ++task) {
        const std::int64_t in_group = task % blocks_ * kLanes<T>, group = task / blocks_;
        const std::int64_t channel = group % volumes_.groups * volumes_.channels + in_group;
        visit({channel, std::min(kLanes<T>, volumes_.channels - in_group),
               (group * volumes_.channels + in_group) * volume, values_.values + task * block_stride()},
              room);
      }
    });
  }

  /// Where voxel `i` of an axis lies.
  std::int64_t place(std::size_t axis, std::int64_t i) const {
    const std::int64_t sum = i + volumes_.shift[axis];
    return sum < grid_.extent[axis] ? sum : sum - grid_.extent[axis];
  }
  std::int64_t extent(std::size_t axis) const { return volumes_.extent[axis]; }

  void fill_conjugates(const Block& block) const {
    for (std::int64_t fd = 0; fd < grid_.extent[0]; ++fd) {
      for (std::int64_t fh = 0; fh < grid_.extent[1]; ++fh) {
        for (std::int64_t fw = 0; fw < grid_.half(); fw += std::max<std::int64_t>(1, grid_.half() - 1)) {
          if (grid_.stands_for(fd, fh, fw) != 0) continue;
          const ComplexLanes<T>& other = block.values[grid_.opposite(fd, fh, fw)];
          block.values[grid_.index(fd, fh, fw)] = {other.re, -other.im};
        }
      }
    }
  }

  /// Transforms `count` lines that lie side by side, their elements `stride` apart.
  void transform_lines(const LineTransform<T>& along, int sign, ComplexLanes<T>* first, std::int64_t stride,
                       std::int64_t count, const Room& room) const {
    for (std::int64_t i = 0; i < count; ++i) {
      for (std::int64_t k = 0; k < along.extent(); ++k) room.line.values[k] = first[k * stride + i];
      along.transform(sign, room.line.values, room.work.values);
      for (std::int64_t k = 0; k < along.extent(); ++k) first[k * stride + i] = room.line.values[k];
    }
  }

  /// Puts the rows of the channels, transformed along W, into zeros.
  void read_rows(const T* from, const Block& block, const Room& room) const {
    const std::int64_t volume = extent(0) * extent(1) * extent(2);
    std::fill_n(block.values, grid_.frequencies(), ComplexLanes<T>{});
    std::fill_n(room.row.values, grid_.extent[2] * kLanes<T>, T(0));
    for (std::int64_t d = 0; d < extent(0); ++d) {
      for (std::int64_t h = 0; h < extent(1); ++h, from += extent(2)) {
        for (std::int64_t w = 0; w < extent(2); ++w) {
          T* to = room.row.values + place(2, w) * kLanes<T>;
          for (std::int64_t c = 0; c < block.channels; ++c) to[c] = from[c * volume + w];
        }
        width_.real_to_half(room.real(), row(block, d, h), room.work.values);
      }
    }
  }

  void write_rows(const Block& block, T* to, const Room& room) const {
    const std::int64_t volume = extent(0) * extent(1) * extent(2);
    const T scale = T(1) / static_cast<T>(grid_.voxels());
    for (std::int64_t d = 0; d < extent(0); ++d) {
      for (std::int64_t h = 0; h < extent(1); ++h, to += extent(2)) {
        width_.half_to_real(row(block, d, h), room.real(), room.work.values);
        for (std::int64_t c = 0; c < block.channels; ++c) {
          for (std::int64_t w = 0; w < extent(2); ++w) {
            to[c * volume + w] = scale * room.row.values[place(2, w) * kLanes<T> + c];
          }
        }
      }
    }
  }

  /// Where the row of voxels at (d, h) lies.
  ComplexLanes<T>* row(const Block& block, std::int64_t d, std::int64_t h) const {
    return block.values + (place(0, d) * grid_.extent[1] + place(1, h)) * grid_.half();
  }

  SpectrumGrid grid_;
  VolumeBatch volumes_;
  std::int64_t blocks_;
  LineTransform<T> depth_, height_, width_;
  Scratch<ComplexLanes<T>> values_;
};

}  // namespace cinnabar::cpu
