#pragma once

#include <cstdint>
#include <vector>

#include "engine/tensor.hpp"
#include "kernels/cpab_cells.hpp"

namespace cinnabar {

/// A tessellation of [0, 1]^d and the linear ways to write a velocity field that is affine in every cell
/// (Freifeld et al., TPAMI 2017, section 3). Everything here is float64 on the CPU; cells are ordered and cut
/// as in kernels/cpab_cells.hpp. A field is one of
///   matrices [N, cells, d, d+1]: v(x) = A_c [x; 1] in domain units a unit of time, the form of the paper;
///   maps     [N, cells, d, d+1]: du/dt = M_c [u; 1] in cell units and box coordinates, what kernels work on;
///   nodes    [N, vertices, d]:   velocities at the vertices in domain units; continuous whatever the values.
class CpabTessellation {
 public:
  /// One to three numbers of boxes, along x, y, z. Throws Error where one is below 1 or there are more than
  /// 2^24 cells.
  explicit CpabTessellation(const std::vector<std::int32_t>& boxes);

  int dims() const { return grid_.dims; }
  const CpabGrid& grid() const { return grid_; }
  std::int64_t cells() const { return cells_; }
  std::int64_t vertices() const { return vertices_; }

  /// [vertices, d]: the corners of the boxes, x fastest, then in 2-D the centres of the boxes, x fastest.
  const Tensor& vertex_positions() const { return positions_; }
  /// i64 [cells, d+1].
  const Tensor& cell_vertices() const { return cell_vertices_; }
  /// [cells, d]: means of the corners.
  Tensor cell_centres() const;
  /// Cell of a point of d coordinates, in T's own arithmetic; float or double.
  template <class T>
  std::int64_t cell_of(const T* point) const;
  /// Whether a vertex lies on a face of the domain across `axis`.
  bool on_boundary(std::int64_t vertex, int axis) const;

  Tensor maps_from_matrices(const Tensor& matrices) const;
  Tensor matrices_from_maps(const Tensor& maps) const;
  Tensor matrices_from_nodes(const Tensor& nodes) const;
  /// Transposes of the above: gradients with respect to matrices from those to maps, and to nodes from those
  /// to matrices.
  Tensor maps_from_matrices_backward(const Tensor& grad_maps) const;
  Tensor matrices_from_nodes_backward(const Tensor& grad_matrices) const;

  /// Weights [d+1, d+1] of a cell: A_c = nodes(c)^T weights, nodes(c) [d+1, d] the velocities at its
  /// vertices.
  std::vector<double> node_weights(std::int64_t cell) const;

 private:
  template <int D>
  void build();

  CpabGrid grid_;
  std::int64_t cells_ = 0;
  std::int64_t vertices_ = 0;
  Tensor positions_;
  Tensor cell_vertices_;
  Tensor box_corners_;  ///< [cells, d], in boxes
};

}  // namespace cinnabar
