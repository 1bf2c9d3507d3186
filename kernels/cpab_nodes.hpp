#pragma once

#include "kernels/cpab_basis.hpp"
#include "kernels/op.hpp"

namespace cinnabar {

/// Maps of continuous piecewise-affine fields from the velocities of their vertices: the sparse
/// parametrisation of Freifeld et al. (IEEE TPAMI 2017, section 3.3), where a parameter moves one coordinate
/// of one vertex and so changes the cells around it only.
///
/// Shapes: theta [N, dim], velocities in domain units; `places` i32 [vertices, d], which entry of theta holds
/// each coordinate of each vertex (kernels/cpab_tessellation.hpp), or -1 where it is 0; maps [N, cells, d,
/// d+1] as for Cpab. A cell reads its d + 1 vertices, so the cost grows with the cells, not with their
/// product with dim.
///
/// All kernels assign their outputs and are deterministic: the gradient of a vertex is gathered from its
/// cells in a fixed order. CUDA takes float32.
struct CpabNodes {
  void (*forward)(const Tensor& theta, const Tensor& places, const CpabGrid& grid, Tensor& maps);
  /// The transpose. Every entry of theta must have its place.
  void (*backward)(const Tensor& grad_maps, const Tensor& places, const CpabGrid& grid, Tensor& grad_theta);
};

CINNABAR_OP(CpabNodes, cpab_nodes);

/// Places, i32 on the CPU, of the coordinates that the boundary leaves free: vertex by vertex, x first.
/// Throws Error for constraints that tie vertices together (volume_preserving, valid_outside): their fields
/// have no basis that moves single vertices.
Tensor cpab_node_places(const CpabTessellation& tessellation, const CpabConstraints& constraints);

/// The same fields in the other parameters, f64 [N, dim] on the CPU: velocities of the free vertices from
/// coordinates in the orthonormal basis, and back. Throws Error where there are no nodal ones.
Tensor cpab_nodal_theta(const CpabBasis& basis, const Tensor& orthonormal);
Tensor cpab_orthonormal_theta(const CpabBasis& basis, const Tensor& nodal);

/// Checks theta, places and maps (or their gradients) against each other. Throws Error.
void cpab_nodes_check(const Tensor& theta, const Tensor& places, const CpabGrid& grid, const Tensor& maps);

/// One cell's map; velocities(vertex, axis) in domain units.
template <class T, int D, class Velocities>
CINNABAR_HD void cpab_map_of_nodes(const CpabGrid& grid, std::int32_t cell, const Velocities& velocities,
                                   T* map) {
  const std::int32_t index = cell / kCpabCellsPerBox<D>;
  const std::int32_t box[3] = {index % grid.boxes[0], index / grid.boxes[0] % grid.boxes[1],
                               index / grid.boxes[0] / grid.boxes[1]};
  const int parity = D == 3 ? (box[0] + box[1] + box[2]) & 1 : 0;
  CINNABAR_UNROLL
  for (int i = 0; i < D * (D + 1); ++i) map[i] = T(0);
  for (int k = 0; k <= D; ++k) {
    T weights[D + 1] = {};
    cpab_corner_weights<T, D>(parity, cell % kCpabCellsPerBox<D>, k, weights);
    const std::int32_t vertex = cpab_vertex<D>(grid, box, parity, cell % kCpabCellsPerBox<D>, k);
    CINNABAR_UNROLL
    for (int r = 0; r < D; ++r) {
      const T velocity = velocities(vertex, r) * static_cast<T>(grid.boxes[r]);
      CINNABAR_UNROLL
      for (int c = 0; c <= D; ++c) map[r * (D + 1) + c] += velocity * weights[c];
    }
  }
}

/// Gradient [d] with respect to a vertex's velocity from those of the maps around it.
template <class T, int D>
CINNABAR_HD void cpab_node_gradient(const CpabGrid& grid, std::int32_t vertex, const T* grad_maps,
                                    T* gradient) {
  std::int32_t corners = 1;
  CINNABAR_UNROLL
  for (int a = 0; a < D; ++a) {
    corners *= grid.boxes[a] + 1;
    gradient[a] = T(0);
  }
  const bool centre = vertex >= corners;  // in 2-D; it lies in one box, a corner in up to 2^d
  std::int32_t rest = centre ? vertex - corners : vertex;
  std::int32_t at[3] = {0, 0, 0};
  CINNABAR_UNROLL
  for (int a = 0; a < D; ++a) {
    const std::int32_t extent = grid.boxes[a] + (centre ? 0 : 1);
    at[a] = rest % extent;
    rest /= extent;
  }
  for (int side = 0; side < (centre ? 1 : 1 << D); ++side) {
    std::int32_t box[3] = {0, 0, 0};
    bool exists = true;
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) {
      box[a] = at[a] - (centre ? 0 : 1 - ((side >> a) & 1));
      exists = exists && box[a] >= 0 && box[a] < grid.boxes[a];
    }
    if (!exists) continue;
    const int parity = D == 3 ? (box[0] + box[1] + box[2]) & 1 : 0;
    const std::int64_t first = box[0] + grid.boxes[0] * (box[1] + std::int64_t{grid.boxes[1]} * box[2]);
    for (int type = 0; type < kCpabCellsPerBox<D>; ++type) {
      for (int k = 0; k <= D; ++k) {
        if (cpab_vertex<D>(grid, box, parity, type, k) != vertex) continue;
        T weights[D + 1] = {};
        cpab_corner_weights<T, D>(parity, type, k, weights);
        const T* grad_map = grad_maps + (first * kCpabCellsPerBox<D> + type) * (D * (D + 1));
        CINNABAR_UNROLL
        for (int r = 0; r < D; ++r) {
          T sum = T(0);
          CINNABAR_UNROLL
          for (int c = 0; c <= D; ++c) sum += grad_map[r * (D + 1) + c] * weights[c];
          gradient[r] += sum * static_cast<T>(grid.boxes[r]);
        }
      }
    }
  }
}

}  // namespace cinnabar
