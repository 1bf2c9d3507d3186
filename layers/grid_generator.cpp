#include "layers/grid_generator.hpp"

#include "kernels/affine_grid.hpp"
#include "layers/cpab_warp.hpp"
#include "layers/field_warp.hpp"
#include "layers/matrix_warp.hpp"
#include "layers/thin_plate_warp.hpp"

namespace cinnabar {

GridGenerator::GridGenerator(const Shape& spatial, std::int64_t parameter_count)
    : spatial_(spatial), parameter_count_(parameter_count) {
  CINNABAR_CHECK(spatial.rank() == 2 || spatial.rank() == 3, "grid_generator",
                 "needs extents (H, W) or (D, H, W), got ", spatial);
  for (const std::int64_t extent : spatial) {
    CINNABAR_CHECK(extent >= 2, "grid_generator", "needs extents of at least 2, got ", spatial);
  }
}

void GridGenerator::check(const Variable& parameters) const {
  const Shape& shape = parameters.shape();
  CINNABAR_CHECK(shape.rank() == 2 && shape[1] == parameter_count_, name(), "takes parameters [N, ",
                 parameter_count_, "], got ", parameters.value());
}

Variable GridGenerator::grid(const Variable& parameters) const {
  check(parameters);
  return make_grid(parameters);
}

Variable GridGenerator::inverse(const Variable& parameters) const {
  check(parameters);
  return make_inverse(parameters);
}

Variable GridGenerator::compose(const Variable& outer, const Variable& inner) const {
  check(outer);
  check(inner);
  return make_composition(outer, inner);
}

Variable GridGenerator::make_inverse(const Variable&) const {
  fail(name(), "the inverse is not of this family");
}

Variable GridGenerator::make_composition(const Variable&, const Variable&) const {
  fail(name(), "compositions are not of this family");
}

Shape GridGenerator::grid_shape(std::int64_t batch) const {
  Shape shape{batch};
  for (const std::int64_t extent : spatial_) shape = shape.append(extent);
  return shape.append(dims());
}

const Tensor& FixedTable::like(const Tensor& other) const {
  if (!converted_.defined() || converted_.dtype() != other.dtype() || converted_.device() != other.device()) {
    converted_ = table_.to(other.dtype()).to(other.device());
  }
  return converted_;
}

Tensor identity_points(const Shape& spatial) {
  const int dims = spatial.rank();
  Tensor points = Tensor::empty({spatial.numel(), dims}, DType::f64);
  double* values = points.data<double>();
  for (std::int64_t p = 0; p < spatial.numel(); ++p) {
    std::int64_t rest = p;
    for (int axis = 0; axis < dims; ++axis) {  // x first
      const std::int64_t extent = spatial[dims - 1 - axis];
      values[p * dims + axis] = base_coordinate<double>(rest % extent, extent, true);
      rest /= extent;
    }
  }
  return points;
}

const std::vector<std::string>& grid_generator_names() {
  static const std::vector<std::string> names{"affine", "attention",    "homography", "tps",
                                              "cpab",   "displacement", "velocity"};
  return names;
}

std::unique_ptr<GridGenerator> make_grid_generator(const std::string& name, const Shape& spatial,
                                                   const GridOptions& options) {
  const auto dims = static_cast<std::size_t>(spatial.rank());
  const Shape lattice(std::vector<std::int64_t>(dims, options.lattice));
  if (name == "affine") return std::make_unique<AffineWarp>(spatial);
  if (name == "attention") return std::make_unique<AttentionWarp>(spatial);
  if (name == "homography") return std::make_unique<HomographyWarp>(spatial);
  if (name == "tps") {
    return std::make_unique<ThinPlateWarp>(spatial, std::vector<std::int64_t>(dims, options.control_points));
  }
  if (name == "cpab") {
    return std::make_unique<CpabWarp>(spatial, std::vector<std::int32_t>(dims, options.boxes));
  }
  if (name == "displacement") return std::make_unique<DisplacementWarp>(spatial, lattice);
  if (name == "velocity") return std::make_unique<VelocityWarp>(spatial, lattice, options.squarings);
  std::string known;
  for (const std::string& other : grid_generator_names()) known += (known.empty() ? "" : ", ") + other;
  fail_input("there is no transformation '", name, "': choose one of ", known);
}

}  // namespace cinnabar
