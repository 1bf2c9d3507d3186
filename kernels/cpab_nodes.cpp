#include "kernels/cpab_nodes.hpp"

#include <algorithm>
#include <vector>

#include "kernels/cpab.hpp"

namespace cinnabar {

namespace {
constexpr const char* kOp = "cpab_nodes";
}  // namespace

Tensor cpab_node_places(const CpabTessellation& tessellation, const CpabConstraints& constraints) {
  CINNABAR_CHECK(
      !constraints.volume_preserving && !constraints.valid_outside, kOp,
      "fields that keep volumes or are continuous outside have no basis that moves single vertices: use "
      "orthonormal parameters");
  std::vector<std::int32_t> places;
  std::int32_t next = 0;
  for (std::int64_t vertex = 0; vertex < tessellation.vertices(); ++vertex) {
    for (int axis = 0; axis < tessellation.dims(); ++axis) {
      const bool held = constraints.zero_boundary && tessellation.on_boundary(vertex, axis);
      places.push_back(held ? -1 : next++);
    }
  }
  return Tensor::from(places, {tessellation.vertices(), tessellation.dims()});
}

namespace {

/// Calls fn(entry of nodes, entry of theta) for the free coordinates of the basis's vertices.
template <class Function>
void for_free_coordinates(const CpabBasis& basis, const Tensor& theta, const Function& fn) {
  CINNABAR_CHECK(theta.rank() == 2 && theta.shape(1) == basis.dim() && theta.dtype() == DType::f64 &&
                     theta.device().is_cpu(),
                 kOp, "needs f64 theta [N, ", basis.dim(), "] on the CPU, got ", theta);
  const Tensor places = cpab_node_places(basis.tessellation(), basis.constraints());
  for (std::int64_t n = 0; n < theta.shape(0); ++n) {
    for (std::int64_t i = 0; i < places.numel(); ++i) {
      const std::int32_t place = places.data<std::int32_t>()[i];
      if (place >= 0) fn(n * places.numel() + i, n * basis.dim() + place);
    }
  }
}

}  // namespace

Tensor cpab_nodal_theta(const CpabBasis& basis, const Tensor& orthonormal) {
  Tensor nodal = Tensor::zeros(orthonormal.shape(), DType::f64);
  const std::int64_t moves = basis.nodes().numel() / std::max<std::int64_t>(basis.dim(), 1);
  for_free_coordinates(basis, orthonormal, [&](std::int64_t node, std::int64_t entry) {
    const std::int64_t n = node / moves;
    for (std::int64_t k = 0; k < basis.dim(); ++k) {
      nodal.data<double>()[entry] += orthonormal.data<double>()[n * basis.dim() + k] *
                                     basis.nodes().data<double>()[k * moves + node % moves];
    }
  });
  return nodal;
}

Tensor cpab_orthonormal_theta(const CpabBasis& basis, const Tensor& nodal) {
  const CpabTessellation& tessellation = basis.tessellation();
  CINNABAR_CHECK(nodal.rank() == 2, kOp, "needs theta [N, dim], got ", nodal);
  Tensor nodes = Tensor::zeros({nodal.shape(0), tessellation.vertices(), tessellation.dims()}, DType::f64);
  for_free_coordinates(basis, nodal, [&](std::int64_t node, std::int64_t entry) {
    nodes.data<double>()[node] = nodal.data<double>()[entry];
  });
  return basis.theta_of(tessellation.matrices_from_nodes(nodes));
}

void cpab_nodes_check(const Tensor& theta, const Tensor& places, const CpabGrid& grid, const Tensor& maps) {
  cpab_check_field(kOp, maps, grid, {});
  std::int64_t vertices = 1, centres = grid.dims == 2 ? 1 : 0;
  for (int a = 0; a < grid.dims; ++a) {
    vertices *= grid.boxes[a] + 1;
    centres *= grid.boxes[a];
  }
  CINNABAR_CHECK(places.shape() == (Shape{vertices + centres, grid.dims}), kOp, "needs places [",
                 vertices + centres, ", ", grid.dims, "], got ", places);
  CINNABAR_CHECK(theta.rank() == 2 && theta.shape(0) == maps.shape(0), kOp, "needs theta [", maps.shape(0),
                 ", dim], got ", theta);
  require_dtype(kOp, places, DType::i32);
  require_dtype(kOp, theta, maps.dtype());
  require_same_device(kOp, theta, maps);
  require_same_device(kOp, places, maps);
}

}  // namespace cinnabar
