#pragma once

#include "kernels/layout.hpp"
#include "kernels/strided.hpp"

namespace cinnabar {

inline void check_view(const char* name, const Tensor& tensor, const View& view, const Shape& extents) {
  std::int64_t lowest = view.offset;
  std::int64_t highest = view.offset;
  for (int axis = 0; axis < extents.rank(); ++axis) {
    const std::int64_t reach = (extents[axis] - 1) * view.stride[static_cast<std::size_t>(axis)];
    (reach < 0 ? lowest : highest) += reach;
  }
  CINNABAR_CHECK(lowest >= 0 && highest < tensor.numel(), "layout", "elements ", lowest, " to ", highest,
                 " of the ", name, ' ', tensor, " do not exist");
}

/// Checks a copy and merges its axes; operand 0 is the source, operand 1 the target.
inline StridedLoop<2> plan_copy(const Tensor& source, const View& from, const Shape& extents, const View& to,
                                const Tensor& target) {
  require_same_device("layout", source, target);
  require_dtype("layout", target, source.dtype());
  StridedLoop<2> loop;
  if (extents.numel() == 0) {
    loop.numel = 0;
    return loop;
  }
  check_view("source", source, from, extents);
  check_view("target", target, to, extents);
  for (int axis = 0; axis < extents.rank(); ++axis) {
    const auto a = static_cast<std::size_t>(axis);
    loop.append(extents[axis], {from.stride[a], to.stride[a]});
  }
  return loop;
}

/// The axis along which the source is contiguous when the target is contiguous along the last one instead: a
/// transposition of these two, which goes through tiles. -1 for any other copy.
inline int transposed_axis(const StridedLoop<2>& loop) {
  constexpr std::int64_t kWorthTiling = 8;
  const int last = loop.rank - 1;
  if (last < 1 || loop.stride[last][1] != 1 || loop.extent[last] < kWorthTiling) return -1;
  for (int axis = 0; axis < last; ++axis) {
    if (loop.stride[axis][0] == 1 && loop.extent[axis] >= kWorthTiling) return axis;
  }
  return -1;
}

/// The axes of a transposing copy besides its two tiled ones.
inline StridedLoop<2> batch_of(const StridedLoop<2>& loop, int across) {
  StridedLoop<2> batch;
  for (int axis = 0; axis + 1 < loop.rank; ++axis) {
    if (axis != across) batch.append(loop.extent[axis], {loop.stride[axis][0], loop.stride[axis][1]});
  }
  return batch;
}

/// Calls fn with an unsigned integer as wide as an element: copies do not look at values.
template <class Function>
void dispatch_width(DType dtype, const Function& fn) {
  switch (size_of(dtype)) {
    case 1:
      return fn(std::uint8_t{});
    case 2:
      return fn(std::uint16_t{});
    case 4:
      return fn(std::uint32_t{});
    default:
      return fn(std::uint64_t{});
  }
}

}  // namespace cinnabar
