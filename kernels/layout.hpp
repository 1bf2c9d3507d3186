#pragma once

#include <array>

#include "kernels/op.hpp"

namespace cinnabar {

/// How a walk over some extents steps through a tensor, in elements: element i of the walk is at
/// offset + sum_a i_a stride_a. Stride 0 repeats.
struct View {
  std::int64_t offset = 0;
  std::array<std::int64_t, Shape::kMaxRank> stride{};

  /// Row-major steps of a contiguous tensor.
  static View contiguous(const Shape& shape) {
    View view;
    std::int64_t step = 1;
    for (int axis = shape.rank() - 1; axis >= 0; --axis) {
      view.stride[static_cast<std::size_t>(axis)] = step;
      step *= shape[axis];
    }
    return view;
  }
};

/// Moves elements: permutation, slicing, concatenation, padding and repetition are all one strided copy. Any
/// dtype, on both devices. Assigns exactly the target elements that the walk visits (each once), leaves the
/// others alone. Throws when a view leaves its tensor.
struct Layout {
  void (*copy)(const Tensor& source, const View& from, const Shape& extents, const View& to, Tensor& target);
};

CINNABAR_OP(Layout, layout);

}  // namespace cinnabar
