#include "autograd/cpab.hpp"

#include "autograd/cpab_nodes.hpp"
#include "autograd/layout.hpp"
#include "autograd/matmul.hpp"
#include "autograd/reduce.hpp"
#include "kernels/affine_grid.hpp"

namespace cinnabar {

namespace {

/// [N, P, d] or [N, P] to take a result.
Tensor result_for(const Tensor& points, const Tensor& maps, bool scalar) {
  CINNABAR_CHECK((points.rank() == 2 || points.rank() == 3) && maps.rank() == 4, "cpab",
                 "needs points [P, d] or [N, P, d] and maps [N, cells, d, d+1], got ", points, " and ", maps);
  const Shape shape{maps.shape(0), points.shape(-2)};
  return Tensor::empty(scalar ? shape : shape.append(points.shape(-1)), points.dtype(), points.device());
}

}  // namespace

CpabSpace::CpabSpace(const std::vector<std::int32_t>& boxes, const CpabConstraints& constraints, DType dtype,
                     Device device, CpabParameters parameters)
    : tessellation_(boxes),
      constraints_(constraints),
      dtype_(dtype),
      device_(device),
      parameters_(parameters) {
  if (parameters == CpabParameters::nodal) {
    const Tensor places = cpab_node_places(tessellation_, constraints);
    for (const std::int32_t place : places.to_vector<std::int32_t>()) dim_ += place >= 0 ? 1 : 0;
    places_ = places.to(device);
    return;
  }
  basis_ = std::make_shared<const CpabBasis>(tessellation_, constraints);
  dim_ = basis_->dim();
  const std::int64_t entries = tessellation_.cells() * dims() * (dims() + 1);
  maps_ = basis_->maps().reshape({dim_, entries}).to(dtype).to(device);
}

const CpabBasis& CpabSpace::basis() const {
  CINNABAR_CHECK(basis_ != nullptr, "cpab", "a space of nodal parameters has no orthonormal basis");
  return *basis_;
}

Variable CpabSpace::maps(const Variable& theta) const {
  const Tensor& value = theta.value();
  CINNABAR_CHECK(value.rank() == 2 && value.shape(1) == dim(), "cpab", "needs theta [N, ", dim(), "], got ",
                 value);
  if (parameters_ == CpabParameters::nodal) return cpab_maps_of_nodes(theta, places_, grid());
  const Shape shape{value.shape(0), tessellation_.cells(), dims(), dims() + 1};
  return reshape(matmul(theta, Variable(maps_)), shape);
}

Tensor CpabSpace::sample_prior(std::int64_t count, double length, double variance,
                               const RandomSequence& sequence) const {
  const auto basis = basis_ != nullptr ? basis_ : std::make_shared<CpabBasis>(tessellation_, constraints_);
  const Tensor theta = basis->sample_prior(count, length, variance, sequence);
  return (basis_ != nullptr ? theta : cpab_nodal_theta(*basis, theta)).to(dtype()).to(device());
}

Variable cpab_flow_of_maps(const Variable& points, const Variable& maps, const CpabGrid& grid,
                           const CpabOptions& options) {
  const Tensor x = points.value();
  const Tensor m = maps.value();
  Tensor output = result_for(x, m, false);
  cpab_on(m.device()).forward(m, x, grid, options, output);
  const bool wants_points = points.requires_grad();
  const bool wants_maps = maps.requires_grad();
  return record_one("cpab_flow", output, {points, maps}, [=](const Tensor& grad_output) {
    Tensor grad_maps = wants_maps ? Tensor::empty_like(m) : Tensor();
    Tensor grad_points = Tensor::empty_like(grad_output);
    cpab_on(m.device()).backward(grad_output, m, x, grid, options, grad_maps, grad_points);
    if (!wants_points) return std::vector<Tensor>{Tensor(), grad_maps};
    if (x.rank() == 3) return std::vector<Tensor>{grad_points, grad_maps};
    // The same points served every batch entry.
    return std::vector<Tensor>{sum(Variable(grad_points), {0}).value(), grad_maps};
  });
}

Variable cpab_flow(const Variable& points, const Variable& theta, const CpabSpace& space,
                   const CpabOptions& options) {
  return cpab_flow_of_maps(points, space.maps(theta), space.grid(), options);
}

Tensor cpab_velocity(const Tensor& points, const Tensor& theta, const CpabSpace& space) {
  const Tensor maps = space.maps(Variable(theta)).value();
  Tensor velocity = result_for(points, maps, false);
  cpab_on(maps.device()).velocity(maps, points, space.grid(), velocity);
  return velocity;
}

Tensor cpab_log_determinant(const Tensor& points, const Tensor& theta, const CpabSpace& space,
                            const CpabOptions& options) {
  const Tensor maps = space.maps(Variable(theta)).value();
  Tensor result = result_for(points, maps, true);
  cpab_on(maps.device()).log_determinant(maps, points, space.grid(), options, result);
  return result;
}

Tensor cpab_grid_points(const std::vector<std::int64_t>& counts, bool corners, DType dtype, Device device) {
  CINNABAR_CHECK(!counts.empty() && counts.size() <= 3, "cpab", "needs 1 to 3 extents, got ", counts.size());
  std::int64_t total = 1;
  for (const std::int64_t count : counts) total *= count;
  const auto d = static_cast<std::int64_t>(counts.size());
  Tensor points = Tensor::empty({total, d}, DType::f64);
  for (std::int64_t p = 0; p < total; ++p) {
    std::int64_t index = p;
    for (std::int64_t a = 0; a < d; ++a) {
      const std::int64_t count = counts[static_cast<std::size_t>(d - 1 - a)];
      points.data<double>()[p * d + a] = unit_coordinate<double>(index % count, count, corners);
      index /= count;
    }
  }
  return points.to(dtype).to(device);
}

}  // namespace cinnabar
