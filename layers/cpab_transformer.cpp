#include "layers/cpab_transformer.hpp"

#include "autograd/cpab_sample.hpp"
#include "autograd/elementwise.hpp"
#include "autograd/layout.hpp"

namespace cinnabar {

CpabTransformer::CpabTransformer(const std::vector<std::int32_t>& boxes, const CpabConstraints& constraints,
                                 const CpabOptions& options, DType dtype, Device device,
                                 CpabParameters parameters)
    : space_(boxes, constraints, dtype, device, parameters), options_(options) {}

Variable CpabTransformer::grid(const Variable& theta, const Shape& spatial) const {
  CINNABAR_CHECK(spatial.rank() == space_.dims(), "cpab_transformer", "a field of ", space_.dims(),
                 " dimensions does not warp images of extents ", spatial);
  const Variable points(
      cpab_grid_points({spatial.begin(), spatial.end()}, true, space_.dtype(), space_.device()));
  Shape shape{theta.shape()[0]};
  for (const std::int64_t extent : spatial) shape = shape.append(extent);
  return reshape(affine(cpab_flow(points, theta, space_, options_), 2.0, -1.0), shape.append(space_.dims()));
}

Variable CpabTransformer::operator()(const Variable& images, const Variable& theta) const {
  const Shape& shape = images.shape();
  const std::int64_t batch = theta.shape()[0];
  const Variable many = shape[0] == 1 && batch != 1 ? expand(images, shape.with(0, batch)) : images;
  return cpab_sample(many, theta, space_, {.boundary = Boundary::border, .align_corners = true}, options_);
}

}  // namespace cinnabar
