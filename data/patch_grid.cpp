#include "data/patch_grid.hpp"

#include <algorithm>
#include <limits>

#include "kernels/patches.hpp"
#include "kernels/reduce.hpp"

namespace cinnabar {

namespace {

constexpr const char* kOp = "patch_grid";

void check_triple(const char* name, const Shape& shape) {
  CINNABAR_CHECK(shape.rank() == 3 && shape.numel() > 0, kOp, name, " must be three positive extents, got ",
                 shape);
}

/// Adds the sum over every patch to `sums`.
void add_patch_sums(const Tensor& image, const Tensor& starts, const Shape& patch,
                    std::vector<double>& sums) {
  constexpr std::int64_t kAtOnce = 512;  // 7 MB for one channel of 15^3
  const Tensor places = starts.to(image.device());
  const std::int64_t count = starts.shape(0);
  for (std::int64_t first = 0; first < count; first += kAtOnce) {
    const std::int64_t rows = std::min(kAtOnce, count - first);
    Tensor cut =
        Tensor::empty({rows, image.shape(1), patch[0], patch[1], patch[2]}, image.dtype(), image.device());
    patches_on(image.device()).gather(image, places.rows(first, rows), cut);
    Tensor sum = Tensor::empty({rows, 1, 1, 1, 1}, image.dtype(), image.device());
    reduce_on(image.device()).forward(Reduction::sum, cut, {}, 1.0, sum);
    const std::vector<double> values = sum.to_vector<double>();
    for (std::size_t i = 0; i < values.size(); ++i) sums[static_cast<std::size_t>(first) + i] += values[i];
  }
}

}  // namespace

std::vector<std::int64_t> grid_positions(std::int64_t extent, std::int64_t patch, std::int64_t stride) {
  CINNABAR_CHECK(extent > 0 && patch > 0 && stride > 0, kOp, "extent ", extent, ", patch ", patch,
                 " and stride ", stride, " must be positive");
  std::vector<std::int64_t> positions{0};
  while (positions.back() + stride + patch <= extent) positions.push_back(positions.back() + stride);
  if (positions.back() + patch < extent) positions.push_back(extent - patch);
  return positions;
}

Tensor grid_starts(const Shape& spatial, const PatchGrid& grid, std::int64_t volume) {
  check_triple("a volume's shape", spatial);
  check_triple("patch", grid.patch);
  check_triple("stride", grid.stride);
  constexpr std::int64_t kLargest = std::numeric_limits<std::int32_t>::max();
  CINNABAR_CHECK(
      volume >= 0 && volume <= kLargest && std::max({spatial[0], spatial[1], spatial[2]}) <= kLargest, kOp,
      "volume ", volume, " of ", spatial, " is too large");
  const auto positions = [&](int axis) {
    return grid_positions(spatial[axis], grid.patch[axis], grid.stride[axis]);
  };
  const auto along_z = positions(0), along_y = positions(1), along_x = positions(2);
  std::vector<std::int32_t> rows;
  rows.reserve(4 * along_z.size() * along_y.size() * along_x.size());
  for (const std::int64_t z : along_z) {
    for (const std::int64_t y : along_y) {
      for (const std::int64_t x : along_x) {
        for (const std::int64_t value : {volume, z, y, x}) rows.push_back(static_cast<std::int32_t>(value));
      }
    }
  }
  return Tensor::from(rows, {static_cast<std::int64_t>(rows.size() / 4), 4});
}

Tensor foreground_starts(const std::vector<Tensor>& images, const Tensor& starts, const Shape& patch,
                         const ForegroundOptions& options) {
  CINNABAR_CHECK(!images.empty(), kOp, "no image to find the foreground in");
  CINNABAR_CHECK(starts.defined() && starts.rank() == 2, kOp, "starts must be [N, 4], got ", starts);
  check_triple("patch", patch);
  std::vector<double> sums(static_cast<std::size_t>(starts.shape(0)), 0.0);
  for (const Tensor& image : images) {
    CINNABAR_CHECK(image.defined() && image.rank() == 5, kOp, "images must be [V, C, D, H, W], got ", image);
    require_same_device(kOp, image, images.front());
    add_patch_sums(image, starts, patch, sums);
  }
  const std::vector<std::int32_t> all = starts.to_vector<std::int32_t>();
  std::vector<std::int32_t> chosen;
  for (std::size_t n = options.skip_first ? 1 : 0; n < sums.size(); ++n) {
    if (sums[n] == 0.0) continue;
    const auto row = all.begin() + static_cast<std::ptrdiff_t>(4 * n);
    chosen.insert(chosen.end(), row, row + 4);
  }
  return Tensor::from(chosen, {static_cast<std::int64_t>(chosen.size() / 4), 4});
}

}  // namespace cinnabar
