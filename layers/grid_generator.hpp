#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "autograd/variable.hpp"

namespace cinnabar {

/// Makes sampling grids out of parameters: the middle part of a spatial transformer (Jaderberg et al.,
/// "Spatial transformer networks", NIPS 2015). A grid says for each voxel x of the result where in the image
/// its value comes from, T(x); sampling gives image o T. All parameters zero is the identity.
///
/// Coordinates are x, y(, z), from -1 at the first to 1 at the last voxel centre of their axis, as
/// grid_sample takes them with align_corners. Parameters may be f32 or f64 and on any device; constants
/// follow them. A generator is not to be used by several threads at once.
///
///   ThinPlateWarp warp({64, 64}, {4, 4});
///   Variable p(Tensor::zeros({1, warp.parameter_count()}), true);
///   mse_loss(transformed(moving, warp, p), target).backward();
class GridGenerator {
 public:
  virtual ~GridGenerator() = default;
  GridGenerator(const GridGenerator&) = delete;
  GridGenerator& operator=(const GridGenerator&) = delete;

  /// Extents (H, W) or (D, H, W) of the grids.
  const Shape& spatial() const { return spatial_; }
  int dims() const { return spatial_.rank(); }
  /// P.
  std::int64_t parameter_count() const { return parameter_count_; }

  /// [N, P] to [N, (D,) H, W, d]. Differentiable.
  Variable grid(const Variable& parameters) const;

  /// Parameters of the inverse T^-1. Throws Error where they are not parameters of this family.
  virtual bool has_inverse() const { return false; }
  Variable inverse(const Variable& parameters) const;

  /// Parameters of outer o inner, the map that first applies `inner`: sampling with it equals sampling with
  /// `outer` and the result of that with `inner`. Throws Error where they are not parameters of this family.
  virtual bool has_composition() const { return false; }
  Variable compose(const Variable& outer, const Variable& inner) const;

 protected:
  /// Extents of at least 2.
  GridGenerator(const Shape& spatial, std::int64_t parameter_count);

  virtual const char* name() const = 0;
  virtual Variable make_grid(const Variable& parameters) const = 0;
  virtual Variable make_inverse(const Variable& parameters) const;
  virtual Variable make_composition(const Variable& outer, const Variable& inner) const;

  /// [N, (D,) H, W, d], the shape of a grid.
  Shape grid_shape(std::int64_t batch) const;

 private:
  void check(const Variable& parameters) const;

  Shape spatial_;
  std::int64_t parameter_count_;
};

/// A table made once in f64 on the CPU, in the dtype and on the device of whoever asks.
class FixedTable {
 public:
  explicit FixedTable(Tensor table) : table_(std::move(table)) {}
  const Tensor& like(const Tensor& other) const;

 private:
  Tensor table_;
  mutable Tensor converted_;
};

/// f64 [voxels, d]: the coordinates of all voxel centres, x fastest: the identity grid.
Tensor identity_points(const Shape& spatial);

struct GridOptions {
  std::int64_t control_points = 4;  ///< thin-plate splines: along each axis
  std::int32_t boxes = 3;           ///< CPAB: along each axis
  std::int64_t lattice = 8;         ///< displacement and velocity: vectors along each axis
  int squarings = 7;                ///< velocity
};

/// Names that make_grid_generator knows.
const std::vector<std::string>& grid_generator_names();

/// "affine", "attention", "homography" (layers/matrix_warp.hpp), "tps" (thin_plate_warp.hpp), "cpab"
/// (cpab_warp.hpp), "displacement" or "velocity" (field_warp.hpp). Throws InputError that lists the names for
/// any other.
std::unique_ptr<GridGenerator> make_grid_generator(const std::string& name, const Shape& spatial,
                                                   const GridOptions& options = {});

}  // namespace cinnabar
