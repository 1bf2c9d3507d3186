#include "autograd/cpab_nodes.hpp"

namespace cinnabar {

Variable cpab_maps_of_nodes(const Variable& theta, const Tensor& places, const CpabGrid& grid) {
  const Tensor velocities = theta.value();
  const std::int64_t per_box = grid.dims == 1   ? kCpabCellsPerBox<1>
                               : grid.dims == 2 ? kCpabCellsPerBox<2>
                                                : kCpabCellsPerBox<3>;
  const std::int64_t cells = per_box * grid.boxes[0] * grid.boxes[1] * grid.boxes[2];
  CINNABAR_CHECK(velocities.rank() == 2, "cpab_nodes", "needs theta [N, dim], got ", velocities);
  Tensor maps = Tensor::empty({velocities.shape(0), cells, grid.dims, grid.dims + 1}, velocities.dtype(),
                              velocities.device());
  cpab_nodes_on(velocities.device()).forward(velocities, places, grid, maps);
  return record_one("cpab_nodes", maps, {theta}, [=](const Tensor& grad_maps) {
    Tensor grad_theta = Tensor::empty_like(velocities);
    cpab_nodes_on(velocities.device()).backward(grad_maps, places, grid, grad_theta);
    return std::vector<Tensor>{grad_theta};
  });
}

}  // namespace cinnabar
