// Strided copies.
// Work split: one element a thread in the order of the target. A transposition (source and target contiguous
// along different axes) goes through 32 x 32 tiles of shared memory instead, 8 rows of 32 threads a tile, so
// that loads and stores are both whole 128-byte lines.
// Shared memory: 32 x 33 elements; the 33rd column keeps a tile's column in 32 different banks.
// Launch: 256 threads. Limiting resource: memory bandwidth (8 bytes a 32-bit element).
#include "kernels/layout.hpp"

#include "kernels/cuda/launch.cuh"
#include "kernels/layout_plan.hpp"

namespace cinnabar::cuda {

namespace {

constexpr int kBlock = 256;
constexpr int kTile = 32;
constexpr int kTileRows = kBlock / kTile;

/// A thread owns one element.
// budget: <=32 registers, 0 B shared, 256 threads, occupancy >= 1.0
template <class Index, class Element>
__global__ void layout_copy_kernel(StridedLoop<2> loop, const Element* source, Element* target) {
  const std::int64_t i = thread_index();
  if (i >= loop.numel) return;
  std::int64_t at[2];
  loop.offsets<Index>(i, at);
  target[at[1]] = source[at[0]];
}

/// Tiles of a transposing copy: source contiguous over `rows`, target over `columns`.
struct Tiles {
  StridedLoop<2> batch;
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t step_in;   // source step of a column
  std::int64_t step_out;  // target step of a row
  std::int64_t tiles_down;
  std::int64_t tiles_right;
};

/// A block owns one tile.
// budget: <=40 registers, 8448 B shared, 256 threads, occupancy >= 0.75
template <class Element>
__global__ void layout_transpose_kernel(Tiles tiles, const Element* source, Element* target) {
  CINNABAR_SHARED(Element, tile, kTile * (kTile + 1));
  const int lane = static_cast<int>(threadIdx.x) % kTile;
  const int start = static_cast<int>(threadIdx.x) / kTile;
  const std::int64_t index = blockIdx.x;
  std::int64_t at[2];
  tiles.batch.offsets<std::uint64_t>(index / (tiles.tiles_down * tiles.tiles_right), at);
  const std::int64_t row = index / tiles.tiles_right % tiles.tiles_down * kTile;
  const std::int64_t column = index % tiles.tiles_right * kTile;
  for (int c = start; c < kTile; c += kTileRows) {
    if (row + lane < tiles.rows && column + c < tiles.columns) {
      tile[c * (kTile + 1) + lane] = source[at[0] + row + lane + (column + c) * tiles.step_in];
    }
  }
  __syncthreads();
  for (int r = start; r < kTile; r += kTileRows) {
    if (row + r < tiles.rows && column + lane < tiles.columns) {
      target[at[1] + (row + r) * tiles.step_out + column + lane] = tile[lane * (kTile + 1) + r];
    }
  }
}

template <class Element>
void copy_tiles(const StridedLoop<2>& loop, int across, const Element* source, Element* target,
                Device device) {
  const int last = loop.rank - 1;
  const std::int64_t rows = loop.extent[across];
  const std::int64_t columns = loop.extent[last];
  const Tiles tiles{batch_of(loop, across),
                    rows,
                    columns,
                    loop.stride[last][0],
                    loop.stride[across][1],
                    (rows + kTile - 1) / kTile,
                    (columns + kTile - 1) / kTile};
  const std::int64_t blocks = tiles.batch.numel * tiles.tiles_down * tiles.tiles_right;
  launch("layout", layout_transpose_kernel<Element>, cover(blocks * kBlock, kBlock), device, tiles, source,
         target);
}

template <class Element>
void copy_elements(const StridedLoop<2>& loop, const Element* source, Element* target, Device device) {
  const bool narrow = loop.numel <= std::numeric_limits<std::int32_t>::max();
  launch("layout",
         narrow ? layout_copy_kernel<std::uint32_t, Element> : layout_copy_kernel<std::uint64_t, Element>,
         cover(loop.numel, kBlock), device, loop, source, target);
}

void copy(const Tensor& source, const View& from, const Shape& extents, const View& to, Tensor& target) {
  const StridedLoop<2> loop = plan_copy(source, from, extents, to, target);
  if (loop.numel == 0) return;
  const int across = transposed_axis(loop);
  const Device device = source.device();
  dispatch_width(source.dtype(), [&](auto width) {
    using Element = decltype(width);
    const auto* in = static_cast<const Element*>(source.raw()) + from.offset;
    auto* out = static_cast<Element*>(target.raw()) + to.offset;
    across >= 0 ? copy_tiles(loop, across, in, out, device) : copy_elements(loop, in, out, device);
  });
}

}  // namespace

extern const Layout layout;
const Layout layout{copy};

}  // namespace cinnabar::cuda
