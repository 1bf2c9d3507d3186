#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "engine/host_device.hpp"
#include "engine/tensor.hpp"

namespace cinnabar {

/// Row-major walk over an output with N strided operands beside it (stride 0 where an operand is repeated).
/// Axes of extent 1 are dropped and neighbours that every operand steps through evenly are merged, so most
/// loops have one or two axes left. Strides and offsets count elements.
template <int N>
struct StridedLoop {
  int rank = 0;
  std::int64_t numel = 1;
  std::int64_t extent[Shape::kMaxRank] = {};
  std::int64_t stride[Shape::kMaxRank][N] = {};

  /// Adds the next inner axis.
  void append(std::int64_t axis_extent, const std::array<std::int64_t, N>& strides) {
    numel *= axis_extent;
    if (axis_extent == 1) return;
    bool merge = rank > 0;
    for (int n = 0; merge && n < N; ++n) {
      merge = stride[rank - 1][n] == strides[static_cast<std::size_t>(n)] * axis_extent;
    }
    const int target = merge ? rank - 1 : rank++;
    extent[target] = merge ? extent[target] * axis_extent : axis_extent;
    for (int n = 0; n < N; ++n) stride[target][n] = strides[static_cast<std::size_t>(n)];
  }

  bool is_contiguous() const {
    for (int n = 0; n < N; ++n) {
      if (rank > 1 || (rank == 1 && stride[0][n] != 1)) return false;
    }
    return true;
  }

  /// Operand offsets of one output element. Index is 32-bit where the caller has checked that it suffices:
  /// 64-bit division costs several times as much on a GPU.
  template <class Index>
  CINNABAR_HD void offsets(std::int64_t element, std::int64_t (&offset)[N]) const {
    for (int n = 0; n < N; ++n) offset[n] = 0;
    Index rest = static_cast<Index>(element);
    for (int axis = rank - 1; axis > 0; --axis) {
      const Index length = static_cast<Index>(extent[axis]);
      const Index outer = rest / length;
      const std::int64_t step = static_cast<std::int64_t>(rest - outer * length);
      for (int n = 0; n < N; ++n) offset[n] += step * stride[axis][n];
      rest = outer;
    }
    if (rank > 0) {
      for (int n = 0; n < N; ++n) offset[n] += static_cast<std::int64_t>(rest) * stride[0][n];
    }
  }
};

/// Shape that a and b broadcast to: aligned at the innermost axis, extents equal or one of them 1.
inline Shape broadcast_shape(const char* op, const Shape& a, const Shape& b) {
  const Shape& longer = a.rank() >= b.rank() ? a : b;
  const Shape& shorter = a.rank() >= b.rank() ? b : a;
  Shape result = longer;
  for (int axis = -1; axis >= -shorter.rank(); --axis) {
    const std::int64_t p = longer[axis];
    const std::int64_t q = shorter[axis];
    CINNABAR_CHECK(p == q || p == 1 || q == 1, op, "shapes ", a, " and ", b, " do not broadcast");
    result = result.with(axis, p == 1 ? q : p);
  }
  return result;
}

/// The walk over a tensor of shape `output` with contiguous operands broadcast to it.
template <int N>
StridedLoop<N> broadcast_loop(const char* op, const Shape& output, const std::array<Shape, N>& operands) {
  std::int64_t strides[Shape::kMaxRank][N] = {};
  for (std::size_t n = 0; n < N; ++n) {
    CINNABAR_CHECK(operands[n].rank() <= output.rank(), op, "shape ", operands[n], " does not broadcast to ",
                   output);
    std::int64_t step = 1;
    for (int axis = -1; axis >= -operands[n].rank(); --axis) {
      const std::int64_t extent = operands[n][axis];
      CINNABAR_CHECK(extent == output[axis] || extent == 1, op, "shape ", operands[n],
                     " does not broadcast to ", output);
      strides[output.rank() + axis][n] = extent == 1 ? 0 : step;
      step *= extent;
    }
  }
  StridedLoop<N> loop;
  for (int axis = 0; axis < output.rank(); ++axis) loop.append(output[axis], std::to_array(strides[axis]));
  return loop;
}

/// Calls run(element, count, offsets) for the runs along the innermost axis that make up output elements
/// [first, last); operand n steps by stride[rank - 1][n] within a run.
template <int N, class Run>
void for_each_run(const StridedLoop<N>& loop, std::int64_t first, std::int64_t last, const Run& run) {
  const std::int64_t length = loop.rank == 0 ? 1 : loop.extent[loop.rank - 1];
  while (first < last) {
    std::int64_t offsets[N];
    loop.template offsets<std::int64_t>(first, offsets);
    const std::int64_t count = std::min(last - first, length - first % length);
    run(first, count, offsets);
    first += count;
  }
}

}  // namespace cinnabar
