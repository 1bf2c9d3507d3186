#include "layers/cpab_transformer.hpp"

#include "autograd/cpab_sample.hpp"
#include "autograd/elementwise.hpp"
#include "autograd/layout.hpp"

namespace cinnabar {

namespace {

constexpr const char* kOp = "cpab_transformer";

}  // namespace

CpabTransformer::CpabTransformer(const std::vector<std::int32_t>& boxes, const CpabConstraints& constraints,
                                 const CpabOptions& options, DType dtype, Device device)
    : space_(boxes, constraints, dtype, device), options_(options) {}

Variable CpabTransformer::grid(const Variable& theta, const Shape& spatial) const {
  CINNABAR_CHECK(spatial.rank() == space_.dims(), kOp, "a field of ", space_.dims(),
                 " dimensions does not warp images of extents ", spatial);
  const Variable points(
      cpab_grid_points({spatial.begin(), spatial.end()}, true, space_.dtype(), space_.device()));
  Shape shape{theta.shape()[0]};
  for (const std::int64_t extent : spatial) shape = shape.append(extent);
  return reshape(2.0 * cpab_flow(points, theta, space_, options_) - 1.0, shape.append(space_.dims()));
}

Variable CpabTransformer::operator()(const Variable& images, const Variable& theta) const {
  const Shape& shape = images.shape();
  CINNABAR_CHECK(shape.rank() == space_.dims() + 2, kOp, "a field of ", space_.dims(),
                 " dimensions warps images with ", space_.dims() + 2, " axes, not ", shape);
  const std::int64_t batch = theta.shape()[0];
  CINNABAR_CHECK(shape[0] == batch || shape[0] == 1, kOp, shape[0], " images for ", batch, " fields");
  const Variable many = shape[0] == batch ? images : expand(images, shape.with(0, batch));
  return cpab_sample(many, theta, space_, {.boundary = Boundary::border, .align_corners = true}, options_);
}

}  // namespace cinnabar
