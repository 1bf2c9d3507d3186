#pragma once

#include <initializer_list>
#include <limits>
#include <utility>
#include <vector>

#include "autograd/variable.hpp"

namespace cinnabar {

/// The same elements under another shape; one extent may be -1. Shares the value's memory.
Variable reshape(const Variable& x, std::initializer_list<std::int64_t> extents);
Variable reshape(const Variable& x, const Shape& shape);
/// Drops an axis of extent 1, or inserts one before `axis` of the result.
Variable squeeze(const Variable& x, int axis);
Variable unsqueeze(const Variable& x, int axis);

/// Axis a of the result is axis order[a] of x.
Variable permute(const Variable& x, const std::vector<int>& order);
Variable transpose(const Variable& x, int axis_a, int axis_b);

/// Elements start, start + step, ... below stop of one axis. Negative positions count from the end, positions
/// beyond it are limited to it.
struct Slice {
  std::int64_t start = 0;
  std::int64_t stop = std::numeric_limits<std::int64_t>::max();
  std::int64_t step = 1;
};
/// One Slice for each leading axis; the axes not named are taken whole.
Variable slice(const Variable& x, const std::vector<Slice>& slices);
Variable slice(const Variable& x, int axis, std::int64_t start, std::int64_t stop, std::int64_t step = 1);

/// Puts tensors that agree in all other axes one after another along an axis.
Variable concat(const std::vector<Variable>& parts, int axis);
/// Adds `before` and `after` elements of a constant at the ends of each axis (one pair per axis).
Variable pad(const Variable& x, const std::vector<std::pair<std::int64_t, std::int64_t>>& margins,
             double value = 0.0);
/// Repeats x to a shape it broadcasts to.
Variable expand(const Variable& x, const Shape& shape);
/// `expand` outside the graph, for gradients.
Tensor expand_to(const Tensor& x, const Shape& shape);

}  // namespace cinnabar
