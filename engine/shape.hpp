#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <iosfwd>
#include <span>

namespace cinnabar {

/// Extents of a contiguous row-major tensor, outermost axis first (N C D H W for images). Rank 0 is a scalar.
class Shape {
 public:
  static constexpr int kMaxRank = 8;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> extents);
  explicit Shape(std::span<const std::int64_t> extents);

  int rank() const { return rank_; }
  /// Extent of an axis; negative axes count from the innermost (-1 is W).
  std::int64_t operator[](int axis) const;
  /// Product of all extents; 1 for a scalar. Checked against 64-bit overflow at construction.
  std::int64_t numel() const { return numel_; }

  const std::int64_t* begin() const { return extents_.data(); }
  const std::int64_t* end() const { return extents_.data() + rank_; }

  /// The same shape with one axis replaced, removed, or with axes appended.
  Shape with(int axis, std::int64_t extent) const;
  Shape without(int axis) const;
  Shape append(std::int64_t extent) const;

  /// Turns a possibly negative axis into 0..rank-1, or throws.
  int axis(int axis) const;

  friend bool operator==(const Shape& a, const Shape& b);

 private:
  std::array<std::int64_t, kMaxRank> extents_{};
  int rank_ = 0;
  std::int64_t numel_ = 1;
};

std::ostream& operator<<(std::ostream& out, const Shape& shape);

}  // namespace cinnabar
