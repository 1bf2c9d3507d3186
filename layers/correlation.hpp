#pragma once

#include <array>

#include "autograd/variable.hpp"

namespace cinnabar {

/// Products of the features of two images [N, C, D, H, W], differentiable in both.

/// Each voxel of `a` with each of `b` (Teed and Deng, "RAFT", ECCV 2020, eq. 1, over sqrt(C)):
/// [N, Vb, D, H, W] with Vb the number of voxels of `b`, whose extents may differ from those of `a`:
/// result[n, q, p] = sum over c of a[n, c, p] b[n, c, q] / sqrt(C).
Variable all_pairs_correlation(const Variable& a, const Variable& b);

/// Each voxel of `a` with those of `b` at most `radius` (D, H, W) voxels away along each axis, zeros beyond
/// the border (Dosovitskiy et al., "FlowNet", ICCV 2015, eq. 1, of single voxels, over C). Equal shapes;
/// channels of the result are the displacements in row-major order, from -radius to radius, those along W
/// fastest: result[n, k, p] = sum over c of a[n, c, p] b[n, c, p + displacement k] / C. One pass over the
/// images for each displacement.
Variable local_correlation(const Variable& a, const Variable& b, const std::array<std::int64_t, 3>& radius);

}  // namespace cinnabar
