#include "engine/shape.hpp"

#include <algorithm>
#include <ostream>
#include <vector>

#include "engine/error.hpp"

namespace cinnabar {

Shape::Shape(std::initializer_list<std::int64_t> extents)
    : Shape(std::span<const std::int64_t>(extents.begin(), extents.size())) {}

Shape::Shape(std::span<const std::int64_t> extents) {
  CINNABAR_CHECK(extents.size() <= kMaxRank, "shape", "rank ", extents.size(), " is above the limit of ",
                 kMaxRank);
  rank_ = static_cast<int>(extents.size());
  for (std::size_t a = 0; a < extents.size(); ++a) {
    CINNABAR_CHECK(extents[a] >= 0, "shape", "negative extent ", extents[a], " on axis ", a);
    extents_[a] = extents[a];
    CINNABAR_CHECK(!__builtin_mul_overflow(numel_, extents[a], &numel_), "shape",
                   "number of elements overflows 64 bits");
  }
}

int Shape::axis(int axis) const {
  const int resolved = axis < 0 ? axis + rank_ : axis;
  CINNABAR_CHECK(resolved >= 0 && resolved < rank_, "shape", "axis ", axis, " does not exist in shape ",
                 *this);
  return resolved;
}

std::int64_t Shape::operator[](int axis) const {
  return extents_[static_cast<std::size_t>(this->axis(axis))];
}

Shape Shape::with(int axis, std::int64_t extent) const {
  std::vector<std::int64_t> extents(begin(), end());
  extents[static_cast<std::size_t>(this->axis(axis))] = extent;
  return Shape(extents);
}

Shape Shape::without(int axis) const {
  std::vector<std::int64_t> extents(begin(), end());
  extents.erase(extents.begin() + this->axis(axis));
  return Shape(extents);
}

Shape Shape::append(std::int64_t extent) const {
  std::vector<std::int64_t> extents(begin(), end());
  extents.push_back(extent);
  return Shape(extents);
}

bool operator==(const Shape& a, const Shape& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

std::ostream& operator<<(std::ostream& out, const Shape& shape) {
  out << '[';
  const char* separator = "";
  for (const std::int64_t extent : shape) {
    out << separator << extent;
    separator = ", ";
  }
  return out << ']';
}

}  // namespace cinnabar
