// A block of 64 voxels at a time: walked from their indices to their ends, then sampled together. The
// backward pass works on pieces of 2^18 voxels. A walk back samples the image's slope between its way there
// and its way back, and the ends of a piece are kept until its gradient has been scattered to the image.

#include "kernels/cpab_sample.hpp"

#include <algorithm>
#include <array>
#include <span>
#include <vector>

#include "kernels/cpu/cpab_walks.hpp"
#include "kernels/cpu/sample_block.hpp"
#include "kernels/cpu/scatter.hpp"

namespace cinnabar::cpu {
namespace {

constexpr const char* kOp = "cpab_sample";
constexpr std::int64_t kPieceBlocks = 4096;

/// Numbers of the axes of a block of voxels.
template <class T, int D>
using BlockNumbers = std::array<T, static_cast<std::size_t>(kSampleBlock) * D>;
static_assert(kSampleBlock == kCpabBlock);

/// What the passes have in common. Voxels are numbered in blocks that do not cross batch entries.
template <class T, int D>
struct Call {
  GridSampleShape shape;
  GridSampleOptions sampling;
  CpabFields<T, D> fields;
  const T* image;
  std::int64_t blocks;  ///< of one batch entry

  Call(const Tensor& image_tensor, const Tensor& maps, const CpabGrid& grid,
       const GridSampleOptions& sampling_options, const CpabOptions& flow, const GridSampleShape& call_shape)
      : shape(call_shape),
        sampling(sampling_options),
        fields(maps, grid, flow),
        image(image_tensor.data<T>()),
        blocks((shape.points + kSampleBlock - 1) / kSampleBlock) {}

  /// Where batch entry n starts in an image.
  std::int64_t entry(std::int64_t n) const { return n * shape.channels * shape.volume; }
  /// Voxels of a block of the batch.
  int voxels(std::int64_t block) const {
    return static_cast<int>(
        std::min<std::int64_t>(kSampleBlock, shape.points - block % blocks * kSampleBlock));
  }
  /// Points of the voxels [p, p + count) of a batch entry.
  BlockNumbers<T, D> voxel_points(std::int64_t p, int count) const {
    BlockNumbers<T, D> points{};
    for (int i = 0; i < count; ++i)
      cpab_voxel_point<T, D>(p + i, shape.extent, sampling.align_corners, points.data() + i * D);
    return points;
  }
};

/// Turns ends of walks into the coordinates at which to sample.
template <class T>
void to_sampler_coordinates(T* ends, int count) {
  for (int i = 0; i < count; ++i) ends[i] = cpab_sampler_coordinate(ends[i]);
}

template <class Walks, class T, int D>
void run_forward(const Call<T, D>& call, const CpabOptions& flow, T* output) {
  for_sample_blocks(call.shape, [&](std::int64_t n, std::int64_t first, int count) {
    const CpabField<T, D> field = call.fields[n];
    Walks walks(field, flow);
    const BlockNumbers<T, D> points = call.voxel_points(first, count);
    BlockNumbers<T, D> coordinates;
    walks.to_ends(points.data(), count, coordinates.data());
    to_sampler_coordinates(coordinates.data(), count * D);
    SampleCells<T, D> cells;
    locate_samples(coordinates.data(), count, call.shape, call.sampling, cells);
    sample_block(call.image + call.entry(n), cells, count, call.shape, call.sampling,
                 output + call.entry(n) + first);
  });
}

/// The backward pass over a piece, the blocks [first, last) of the batch.
template <class Walks, class T, int D>
class Piece {
 public:
  Piece(const Call<T, D>& call, const CpabOptions& flow, const T* grad_output, std::int64_t first,
        std::int64_t last)
      : call_(call), flow_(flow), grad_output_(grad_output), first_(first), last_(last) {}

  /// Walks all voxels, there and back where there are `sums` to gain, and writes where to sample to `ends`
  /// unless it is null.
  void walk(CpabMapSums<T, D>* sums, T* ends) const {
    const std::int64_t parts = sums != nullptr ? sums->parts() : 64;
    const std::int64_t first_entry = first_ / call_.blocks;
    const std::int64_t entries = (last_ - 1) / call_.blocks + 1 - first_entry;
    parallel_for(entries * parts, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t task = begin; task < end; ++task) {
        walk_part(first_entry + task / parts, task % parts, parts, sums, ends);
      }
    });
  }

  /// Adds to grad_image what the voxels sampled. Sorted by slabs of the image (in 1-D of 64 voxels), those of
  /// all batch entries behind each other.
  void scatter(const T* ends, T* grad_image) const {
    constexpr std::int64_t kThickness = D == 1 ? 64 : 1;
    constexpr auto kOuter = static_cast<std::size_t>(D - 1);
    const GridSampleShape& shape = call_.shape;
    const std::int64_t first_entry = first_ / call_.blocks;
    const std::int64_t entries = (last_ - 1) / call_.blocks + 1 - first_entry;
    const std::int64_t slabs = shape.extent[kOuter] / kThickness + 1;
    const bool linear = call_.sampling.interpolation == Interpolation::linear;
    const auto offsets = sample_corner_offsets<D>(shape);
    const auto find_slabs = [&](std::int64_t begin, std::int64_t end, std::int32_t* slab) {
      SampleCells<T, D> cells;
      for (std::int64_t item = begin; item < end; item += kSampleBlock) {
        const std::int64_t block = first_ + item / kSampleBlock;
        const int count = call_.voxels(block);
        locate_samples(ends + item * D, count, shape, call_.sampling, cells);
        for (int i = 0; i < kSampleBlock; ++i) {
          const std::int32_t cell = i < count ? cells.cell[kOuter][static_cast<std::size_t>(i)] : -2;
          const std::int64_t number = (block / call_.blocks - first_entry) * slabs + (cell + 1) / kThickness;
          *slab++ = cell >= -1 && cell < shape.extent[kOuter] ? static_cast<std::int32_t>(number) : kNoSlab;
        }
      }
    };
    const auto deposit = [&](std::span<const std::uint32_t> items) {
      SampleCells<T, D> cells;
      std::array<T, kSampleBlock * D> coordinates;
      for (; !items.empty(); items = items.subspan(std::min<std::size_t>(kSampleBlock, items.size()))) {
        const std::size_t count = std::min<std::size_t>(kSampleBlock, items.size());
        T* next = coordinates.data();
        for (const std::uint32_t item : items.first(count))
          next = std::copy_n(ends + std::int64_t{item} * D, D, next);
        locate_samples(coordinates.data(), static_cast<int>(count), shape, call_.sampling, cells);
        for (std::size_t i = 0; i < count; ++i) {
          const std::int64_t block = first_ + items[i] / kSampleBlock;
          const std::int64_t at = call_.entry(block / call_.blocks);
          const std::int64_t p = block % call_.blocks * kSampleBlock + items[i] % kSampleBlock;
          scatter_sample(grad_output_ + at + p, sample_point_at(cells, static_cast<int>(i), shape), offsets,
                         shape, linear, grad_image + at);
        }
      }
    };
    scatter_by_slab((last_ - first_) * kSampleBlock, entries * slabs, find_slabs, deposit);
  }

 private:
  /// The blocks of batch entry n whose number is `part` modulo `parts`.
  void walk_part(std::int64_t n, std::int64_t part, std::int64_t parts, CpabMapSums<T, D>* sums,
                 T* ends) const {
    const CpabField<T, D> field = call_.fields[n];
    CpabCellSums<D> sink;
    if (sums != nullptr) sink = sums->part(n, part);
    Walks walks(field, flow_);
    const std::int64_t begin = std::max(first_ - n * call_.blocks, std::int64_t{0});
    const std::int64_t end = std::min(last_ - n * call_.blocks, call_.blocks);
    for (std::int64_t block = begin + (part + parts - begin % parts) % parts; block < end; block += parts) {
      BlockNumbers<T, D> unused;
      T* const coordinates =
          ends == nullptr ? unused.data() : ends + (n * call_.blocks + block - first_) * kSampleBlock * D;
      const int count = call_.voxels(block);
      const BlockNumbers<T, D> points = call_.voxel_points(block * kSampleBlock, count);
      if (sums == nullptr) {
        walks.to_ends(points.data(), count, coordinates);
        to_sampler_coordinates(coordinates, count * D);
      } else {
        walk_back(walks, field.grid, call_.entry(n), block * kSampleBlock, points.data(), count, coordinates,
                  sink);
      }
    }
  }

  /// Voxels [p, p + count) of the batch entry that starts at `entry`.
  void walk_back(Walks& walks, const CpabGrid& grid, std::int64_t entry, std::int64_t p, const T* points,
                 int count, T* coordinates, CpabCellSums<D>& sink) const {
    BlockNumbers<T, D> adjoints;
    const auto seed = [&](int first, int seeds) {
      T* const at = coordinates + first * D;
      T* const adjoint = adjoints.data() + first * D;
      to_sampler_coordinates(at, seeds * D);
      SampleCells<T, D> cells;
      locate_samples(at, seeds, call_.shape, call_.sampling, cells);
      sample_gradients(grad_output_ + entry + p + first, call_.image + entry, cells, seeds, call_.shape,
                       adjoint);
      for (int i = 0; i < seeds * D; ++i) adjoint[i] *= T(2) / static_cast<T>(grid.boxes[i % D]);
    };
    walks.there_and_back(points, count, coordinates, seed, adjoints.data(), sink);
  }

  const Call<T, D>& call_;
  const CpabOptions& flow_;
  const T* grad_output_;
  std::int64_t first_;
  std::int64_t last_;
};

template <class Walks, class T, int D>
void run_backward(const Call<T, D>& call, const CpabOptions& flow, const T* grad_output, T* grad_image,
                  T* grad_maps) {
  CpabMapSums<T, D> sums(call.fields, call.shape.points, grad_maps != nullptr);
  const std::int64_t blocks = call.shape.batch * call.blocks;
  const std::int64_t kept = grad_image == nullptr ? 0 : std::min(blocks, kPieceBlocks);
  std::vector<T> ends(static_cast<std::size_t>(kept * kSampleBlock * D));
  for (std::int64_t first = 0; first < blocks; first += kPieceBlocks) {
    const Piece<Walks, T, D> piece(call, flow, grad_output, first, std::min(first + kPieceBlocks, blocks));
    piece.walk(grad_maps == nullptr ? nullptr : &sums, grad_image == nullptr ? nullptr : ends.data());
    if (grad_image != nullptr) piece.scatter(ends.data(), grad_image);
  }
  if (grad_maps != nullptr) sums.collect(grad_maps);
}

void forward(const Tensor& image, const Tensor& maps, const CpabGrid& grid, const GridSampleOptions& sampling,
             const CpabOptions& flow, Tensor& output) {
  const GridSampleShape shape = cpab_sample_shape(image, maps, grid, flow, output);
  dispatch_cpab(kOp, maps.dtype(), grid, [&](auto type, auto dims) {
    using T = decltype(type);
    constexpr int D = decltype(dims)::value;
    const Call<T, D> call(image, maps, grid, sampling, flow, shape);
    with_cpab_walks<T, D>(flow, [&](auto walks_type) {
      run_forward<typename decltype(walks_type)::type>(call, flow, output.data<T>());
    });
  });
}

void backward(const Tensor& grad_output, const Tensor& image, const Tensor& maps, const CpabGrid& grid,
              const GridSampleOptions& sampling, const CpabOptions& flow, Tensor& grad_image,
              Tensor& grad_maps) {
  const GridSampleShape shape = cpab_sample_shape(image, maps, grid, flow, grad_output);
  cpab_sample_check_gradients(image, maps, grad_image, grad_maps);
  if (grad_image.defined()) grad_image.fill(0.0);
  const bool flows = grad_maps.defined() && sampling.interpolation == Interpolation::linear;
  if (grad_maps.defined() && !flows) grad_maps.fill(0.0);
  dispatch_cpab(kOp, maps.dtype(), grid, [&](auto type, auto dims) {
    using T = decltype(type);
    constexpr int D = decltype(dims)::value;
    const Call<T, D> call(image, maps, grid, sampling, flow, shape);
    with_cpab_walks<T, D>(flow, [&](auto walks_type) {
      run_backward<typename decltype(walks_type)::type>(call, flow, grad_output.data<T>(),
                                                        grad_image.defined() ? grad_image.data<T>() : nullptr,
                                                        flows ? grad_maps.data<T>() : nullptr);
    });
  });
}

}  // namespace

extern const CpabSample cpab_sample;
const CpabSample cpab_sample{forward, backward};

}  // namespace cinnabar::cpu
