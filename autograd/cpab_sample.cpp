#include "autograd/cpab_sample.hpp"

#include <algorithm>

#include "autograd/elementwise.hpp"
#include "autograd/grid_sample.hpp"
#include "autograd/layout.hpp"
#include "kernels/affine_grid.hpp"

namespace cinnabar {

namespace {

constexpr std::int64_t kSlabPoints = std::int64_t{1} << 18;

/// Rows first..first+count-1 along the outermost axis of an image with the given extents, innermost last; 1-D
/// images are one row high and cut along x.
struct Slab {
  std::vector<std::int64_t> extents;  ///< (D,) H, W of the image
  std::int64_t first;
  std::int64_t count;
  bool corners;  ///< align_corners
};

/// [P, d] points of a slab in [0, 1]^d. The whole image's coordinates are an affine function of the slab's.
Tensor slab_points(const Slab& slab, int dims, DType dtype, Device device) {
  const int axes = std::max(dims, 2);
  const int cut = dims == 1 ? 0 : axes - 1;  // x is 0
  const std::int64_t extent = slab.extents[static_cast<std::size_t>(axes - 1 - cut)];
  std::vector<std::int64_t> shape{1};
  for (int axis = 0; axis < axes; ++axis) {
    shape.push_back(axes - 1 - axis == cut ? slab.count : slab.extents[static_cast<std::size_t>(axis)]);
  }
  shape.push_back(axes);
  const std::int64_t ends = slab.corners ? 1 : 0;
  const double whole = static_cast<double>(std::max<std::int64_t>(extent - ends, 1));
  const double scale = static_cast<double>(slab.count - ends) / whole;
  const double shift = extent == 1 ? 0.0 : static_cast<double>(2 * slab.first + slab.count - extent) / whole;
  std::vector<double> matrix(static_cast<std::size_t>(axes * (axes + 1)), 0.0);
  for (int axis = 0; axis < axes; ++axis) {
    double* row = matrix.data() + axis * (axes + 1);
    row[axis] = axis == cut ? 0.5 * scale : 0.5;  // from [-1, 1] to [0, 1]
    row[axes] = axis == cut ? 0.5 * shift + 0.5 : 0.5;
  }
  Tensor points = Tensor::empty(Shape(shape), dtype, device);
  affine_grid_on(device).forward(Tensor::from(matrix, {1, axes, axes + 1}).to(dtype).to(device), slab.corners,
                                 points);
  points = points.reshape({-1, axes});
  return dims == 1 ? slice(Variable(points), 1, 0, 1).value() : points;
}

Variable sample_slab(const Variable& image, const Variable& maps, const Slab& slab, const CpabSpace& space,
                     const GridSampleOptions& options, const CpabOptions& flow) {
  const Variable points(slab_points(slab, space.dims(), image.value().dtype(), image.device()));
  Variable grid = affine(cpab_flow_of_maps(points, maps, space.grid(), flow), 2.0, -1.0);
  if (space.dims() == 1) grid = pad(grid, {{0, 0}, {0, 0}, {0, 1}});  // y = 0
  std::vector<std::int64_t> shape{image.shape()[0]};
  shape.insert(shape.end(), slab.extents.begin(), slab.extents.end());
  shape[space.dims() == 1 ? 2 : 1] = slab.count;
  shape.push_back(std::max(space.dims(), 2));
  return grid_sample(image, reshape(grid, Shape(shape)), options);
}

}  // namespace

Variable cpab_sample(const Variable& image, const Variable& theta, const CpabSpace& space,
                     const GridSampleOptions& options, const CpabOptions& flow) {
  const Shape& shape = image.shape();
  CINNABAR_CHECK(
      shape.rank() == space.dims() + 2 && theta.shape().rank() == 2 && theta.shape()[0] == shape[0],
      "cpab_sample", "needs images [N, C, ", space.dims(), " axes] and theta [N, ", space.dim(), "], got ",
      image.value(), " and ", theta.value());
  if (shape.numel() == 0) return image;
  const bool line = space.dims() == 1;
  const Variable wide = line ? unsqueeze(image, 2) : image;
  const int cut = line ? 3 : 2;
  const std::vector<std::int64_t> extents(wide.shape().begin() + 2, wide.shape().end());
  const std::int64_t rows = wide.shape()[cut];
  const std::int64_t row_points = shape.numel() / (shape[1] * rows);  // of the whole batch
  const std::int64_t height = std::clamp<std::int64_t>(kSlabPoints / row_points, 1, rows);
  const Variable maps = space.maps(theta);
  std::vector<Variable> slabs;
  for (std::int64_t first = 0; first < rows; first += height) {
    const Slab slab{extents, first, std::min(height, rows - first), options.align_corners};
    const auto segment = [=](const std::vector<Variable>& in) {
      return std::vector<Variable>{sample_slab(in[0], in[1], slab, space, options, flow)};
    };
    slabs.push_back(checkpoint(segment, {wide, maps})[0]);
  }
  const Variable result = slabs.size() == 1 ? slabs[0] : concat(slabs, cut);
  return line ? squeeze(result, 2) : result;
}

}  // namespace cinnabar
