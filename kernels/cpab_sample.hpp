#pragma once

#include "kernels/affine_grid.hpp"
#include "kernels/cpab.hpp"
#include "kernels/grid_sample.hpp"

namespace cinnabar {

/// Images warped by flows of continuous piecewise-affine fields: output(x) = image(phi(x)), the CPAB
/// transformer of Detlefsen, Freifeld and Hauberg ("Deep diffeomorphic transformer networks", CVPR 2018) in
/// one pass. Every voxel makes its point from its index, follows the flow (kernels/cpab.hpp) and samples all
/// channels there (kernels/grid_sample.hpp); the points are never kept, the backward pass finds them again.
///
/// Shapes: image and output [N, C, W], [N, C, H, W] or [N, C, D, H, W] for 1, 2 or 3 dimensions; maps [N,
/// cells, d, d+1] as for Cpab. The unit interval of an axis is the image between the centres of its outer
/// voxels (sampling.align_corners) or between its outer faces (otherwise); on an axis of one voxel its
/// middle.
///
/// All kernels assign their outputs and are deterministic: the same bits for any number of threads. CUDA
/// takes float32 and channels below 2^31 voxels.
struct CpabSample {
  void (*forward)(const Tensor& image, const Tensor& maps, const CpabGrid& grid,
                  const GridSampleOptions& sampling, const CpabOptions& flow, Tensor& output);
  /// Gradients of either or both; an undefined tensor is not wanted. grad_image is the transpose in the
  /// image, as of GridSample::backward_input, and grad_maps the exact adjoint of the flow that ran, as of
  /// Cpab::backward; it is zero for Interpolation::nearest.
  void (*backward)(const Tensor& grad_output, const Tensor& image, const Tensor& maps, const CpabGrid& grid,
                   const GridSampleOptions& sampling, const CpabOptions& flow, Tensor& grad_image,
                   Tensor& grad_maps);
};

CINNABAR_OP(CpabSample, cpab_sample);

/// Checks image, maps and output against the grid, and the options; of 1 to 3 dimensions, with as many points
/// as voxels. Throws Error.
GridSampleShape cpab_sample_shape(const Tensor& image, const Tensor& maps, const CpabGrid& grid,
                                  const CpabOptions& flow, const Tensor& output);

/// Checks the results of `backward`, as far as they are defined, against its inputs. Throws Error.
void cpab_sample_check_gradients(const Tensor& image, const Tensor& maps, const Tensor& grad_image,
                                 const Tensor& grad_maps);

/// Domain coordinates of voxel p of an image of the given extents along x, y, z.
template <class T, int D, class Index>
CINNABAR_HD void cpab_voxel_point(Index p, const std::int32_t* extent, bool align_corners, T* point) {
  CINNABAR_UNROLL
  for (int a = 0; a < D; ++a) {
    const auto size = static_cast<Index>(extent[a]);
    point[a] = unit_coordinate<T>(a == D - 1 ? p : p % size, extent[a], align_corners);
    p /= size;
  }
}

/// Coordinate -1 to 1, as grid_sample takes it, of a domain coordinate 0 to 1.
template <class T>
CINNABAR_HD T cpab_sampler_coordinate(T x) {
  return T(2) * x - T(1);
}

}  // namespace cinnabar
