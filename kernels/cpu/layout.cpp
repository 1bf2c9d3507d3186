#include "kernels/layout.hpp"

#include "kernels/layout_plan.hpp"
#include "kernels/parallel.hpp"

namespace cinnabar::cpu {

namespace {

constexpr std::int64_t kGrain = 1 << 15;
constexpr std::int64_t kTile = 32;  // 32 x 32 elements of both sides stay in the first-level cache

template <class Element>
void copy_runs(const StridedLoop<2>& loop, const Element* source, Element* target) {
  const int last = loop.rank - 1;
  const std::int64_t step_in = loop.rank == 0 ? 1 : loop.stride[last][0];
  const std::int64_t step_out = loop.rank == 0 ? 1 : loop.stride[last][1];
  parallel_for(loop.numel, kGrain, [&](std::int64_t first, std::int64_t end) {
    for_each_run(loop, first, end, [&](std::int64_t, std::int64_t count, const std::int64_t(&at)[2]) {
      const Element* in = source + at[0];
      Element* out = target + at[1];
      if (step_in == 1 && step_out == 1) {
        for (std::int64_t i = 0; i < count; ++i) out[i] = in[i];
      } else {
        for (std::int64_t i = 0; i < count; ++i) out[i * step_out] = in[i * step_in];
      }
    });
  });
}

/// Source contiguous along `across`, target along the last axis: tile by tile, so that both sides use whole
/// cache lines.
template <class Element>
void copy_tiles(const StridedLoop<2>& loop, int across, const Element* source, Element* target) {
  const int last = loop.rank - 1;
  const StridedLoop<2> batch = batch_of(loop, across);
  const std::int64_t rows = loop.extent[across];
  const std::int64_t columns = loop.extent[last];
  const std::int64_t tiles_down = (rows + kTile - 1) / kTile;
  const std::int64_t tiles_right = (columns + kTile - 1) / kTile;
  const std::int64_t step_in = loop.stride[last][0];
  const std::int64_t step_out = loop.stride[across][1];
  parallel_for(batch.numel * tiles_down * tiles_right, kGrain / (kTile * kTile),
               [&](std::int64_t first, std::int64_t end) {
                 for (std::int64_t tile = first; tile < end; ++tile) {
                   std::int64_t at[2];
                   batch.offsets<std::int64_t>(tile / (tiles_down * tiles_right), at);
                   const std::int64_t row = tile / tiles_right % tiles_down * kTile;
                   const std::int64_t column = tile % tiles_right * kTile;
                   const std::int64_t row_end = std::min(rows, row + kTile);
                   const std::int64_t column_end = std::min(columns, column + kTile);
                   for (std::int64_t r = row; r < row_end; ++r) {
                     for (std::int64_t c = column; c < column_end; ++c) {
                       target[at[1] + r * step_out + c] = source[at[0] + r + c * step_in];
                     }
                   }
                 }
               });
}

void copy(const Tensor& source, const View& from, const Shape& extents, const View& to, Tensor& target) {
  const StridedLoop<2> loop = plan_copy(source, from, extents, to, target);
  if (loop.numel == 0) return;
  const int across = transposed_axis(loop);
  dispatch_width(source.dtype(), [&](auto width) {
    using Element = decltype(width);
    const auto* in = static_cast<const Element*>(source.raw()) + from.offset;
    auto* out = static_cast<Element*>(target.raw()) + to.offset;
    across >= 0 ? copy_tiles(loop, across, in, out) : copy_runs(loop, in, out);
  });
}

}  // namespace

extern const Layout layout;
const Layout layout{copy};

}  // namespace cinnabar::cpu
