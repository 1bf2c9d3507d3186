#include "layers/field_warp.hpp"

#include <cmath>

#include "autograd/elementwise.hpp"
#include "autograd/layout.hpp"
#include "autograd/upsample.hpp"
#include "autograd/warp.hpp"

namespace cinnabar {

namespace {

/// [N, d, (D,) H, W] as [N, 3, D, H, W].
Variable as_volume_field(const Variable& field) {
  if (field.shape().rank() == 5) return field;
  return pad(unsqueeze(field, 2), {{0, 0}, {0, 1}, {0, 0}, {0, 0}, {0, 0}});
}

Tensor half_extents(const Shape& spatial) {
  const int dims = spatial.rank();
  std::vector<double> values;
  for (int axis = dims - 1; axis >= 0; --axis) {
    values.push_back(0.5 * static_cast<double>(spatial[axis] - 1));
  }
  return Tensor::from(values, dims == 2 ? Shape{2, 1, 1} : Shape{3, 1, 1, 1});
}

}  // namespace

Variable integrate_velocity(const Variable& velocity, int squarings) {
  CINNABAR_CHECK(velocity.shape().rank() == 5 && velocity.shape()[1] == 3, "integrate_velocity",
                 "needs [N, 3, D, H, W], got ", velocity.value());
  CINNABAR_CHECK(squarings >= 0 && squarings <= 30, "integrate_velocity", squarings,
                 " squarings; 0 to 30 are possible");
  Variable u = scale(velocity, std::ldexp(1.0, -squarings));
  for (int k = 0; k < squarings; ++k) u = u + warp(u, u, Boundary::border);
  return u;
}

DisplacementWarp::DisplacementWarp(const Shape& spatial, const Shape& lattice)
    : GridGenerator(spatial, spatial.rank() * lattice.numel()),
      lattice_(lattice),
      identity_(identity_points(spatial)) {
  CINNABAR_CHECK(lattice.rank() == spatial.rank(), "displacement_warp", "a lattice ", lattice,
                 " does not fit extents ", spatial);
  for (const std::int64_t extent : lattice) {
    CINNABAR_CHECK(extent >= 2, "displacement_warp", "needs a lattice of at least 2 points an axis, got ",
                   lattice);
  }
}

Variable DisplacementWarp::vectors(const Variable& parameters) const {
  Shape shape{parameters.shape()[0], dims()};
  for (const std::int64_t extent : lattice_) shape = shape.append(extent);
  const Variable coarse = reshape(parameters, shape);
  return lattice_ == spatial() ? coarse : upsample_to(coarse, spatial(), Interpolation::linear, true);
}

Variable DisplacementWarp::grid_of(const Variable& displacement) const {
  const std::vector<int> channels_last =
      dims() == 2 ? std::vector<int>{0, 2, 3, 1} : std::vector<int>{0, 2, 3, 4, 1};
  const Shape shape = grid_shape(displacement.shape()[0]);
  const Variable identity(identity_.like(displacement.value()).reshape(shape.with(0, 1)));
  return permute(displacement, channels_last) + identity;
}

Variable DisplacementWarp::make_grid(const Variable& parameters) const {
  return grid_of(vectors(parameters));
}

VelocityWarp::VelocityWarp(const Shape& spatial, const Shape& lattice, int squarings)
    : DisplacementWarp(spatial, lattice), squarings_(squarings), half_extents_(half_extents(spatial)) {}

Variable VelocityWarp::make_grid(const Variable& parameters) const {
  const Variable voxels(half_extents_.like(parameters.value()));
  const Variable flow = integrate_velocity(as_volume_field(vectors(parameters) * voxels), squarings_);
  const Variable flat = dims() == 2 ? squeeze(slice(flow, 1, 0, 2), 2) : flow;
  return grid_of(flat / voxels);
}

Variable VelocityWarp::make_inverse(const Variable& parameters) const {
  return -parameters;
}

}  // namespace cinnabar
