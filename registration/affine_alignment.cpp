#include "registration/affine_alignment.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "autograd/affine_grid.hpp"
#include "autograd/elementwise.hpp"
#include "autograd/gaussian_smooth.hpp"
#include "autograd/grid_sample.hpp"
#include "autograd/layout.hpp"
#include "autograd/matmul.hpp"
#include "autograd/reduce.hpp"
#include "autograd/similarity.hpp"
#include "models/lbfgs.hpp"

namespace cinnabar::registration {

namespace {

/// Rotations and shears are measured by the displacement they cause at this distance from the centre, so that
/// all parameters are millimetres and the optimiser meets comparable curvatures.
constexpr double kParameterRadiusMm = 60.0;

Tensor matrix_tensor(const Matrix4& a, Device device) {
  return Tensor::from(std::vector<float>(a.begin(), a.end()), {4, 4}).to(device);
}

/// Extents as affine_grid takes them: D, H, W.
Shape spatial(const Geometry& grid) {
  return {grid.extent[2], grid.extent[1], grid.extent[0]};
}

/// Voxel indices to the [-1, 1] coordinates of align_corners = false.
Matrix4 normalising(const Geometry& grid) {
  Matrix4 result = kIdentity4;
  for (std::size_t d = 0; d < 3; ++d) {
    const auto extent = static_cast<double>(grid.extent[d]);
    result[5 * d] = 2.0 / extent;
    result[4 * d + 3] = 1.0 / extent - 1.0;
  }
  return result;
}

Matrix4 translation(const Point& by) {
  Matrix4 result = kIdentity4;
  for (std::size_t d = 0; d < 3; ++d) result[4 * d + 3] = by[d];
  return result;
}

Point difference(const Point& a, const Point& b) {
  return {a[0] - b[0], a[1] - b[1], a[2] - b[2]};
}

/// The generators of the parameters as rows of a [P, 16] matrix: three translations, then either three
/// rotations or the nine entries of the linear part.
Tensor generators(AffineModel model, Device device) {
  const std::int64_t count = model == AffineModel::rigid ? 6 : 12;
  std::vector<float> rows(static_cast<std::size_t>(count) * 16, 0.0f);
  const auto set = [&](std::size_t parameter, std::size_t row, std::size_t column, double value) {
    rows[parameter * 16 + row * 4 + column] = static_cast<float>(value);
  };
  for (std::size_t d = 0; d < 3; ++d) set(d, d, 3, 1.0);
  for (std::size_t p = 3; p < static_cast<std::size_t>(count); ++p) {
    if (model == AffineModel::rigid) {
      const std::size_t axis = p - 3, a = (axis + 1) % 3, b = (axis + 2) % 3;
      set(p, a, b, -1.0 / kParameterRadiusMm);
      set(p, b, a, 1.0 / kParameterRadiusMm);
    } else {
      set(p, (p - 3) / 3, (p - 3) % 3, 1.0 / kParameterRadiusMm);
    }
  }
  return Tensor::from(rows, {count, 16}).to(device);
}

/// exp of a 4x4 generator by scaling and squaring: rigid generators give exact rotations to rounding.
Variable matrix_exponential(const Variable& generator) {
  constexpr int kSquarings = 6;
  const Variable scaled = std::ldexp(1.0, -kSquarings) * generator;
  const Variable identity(matrix_tensor(kIdentity4, generator.device()));
  Variable term = scaled;
  Variable result = identity + scaled;
  for (int order = 2; order <= 6; ++order) {
    term = (1.0 / order) * matmul(term, scaled);
    result = result + term;
  }
  for (int i = 0; i < kSquarings; ++i) result = matmul(result, result);
  return result;
}

/// One resolution: both images on isotropic grids, and the loss as a function of the motion parameters.
class AlignmentLevel {
 public:
  AlignmentLevel(const Image& fixed, const Image& moving, const Image* mask, double spacing_mm, Device device)
      : device_(device),
        fixed_grid_(isotropic_grid(fixed.geometry, spacing_mm)),
        moving_grid_(isotropic_grid(moving.geometry, spacing_mm)),
        fixed_(resample(fixed, fixed_grid_, kIdentity4, device)),
        moving_(resample(moving, moving_grid_, kIdentity4, device)),
        inside_(Tensor::full(moving_.shape(), 1.0, DType::f32, device)) {
    if (mask != nullptr) mask_ = resample(*mask, fixed_grid_, kIdentity4, device);
  }

  /// 1 - NCC at base * centred exp(parameters), over the voxels that the moving image covers.
  Variable loss(const Matrix4& base, const Point& centre, const Variable& parameters,
                AffineModel model) const {
    const std::int64_t count = parameters.shape()[0];
    const Variable generator =
        reshape(matmul(reshape(parameters, {1, count}), Variable(generators(model, device_))), {4, 4});
    const Matrix4 before = multiply(translation(difference({0, 0, 0}, centre)),
                                    multiply(fixed_grid_.voxel_to_world, invert(normalising(fixed_grid_))));
    const Matrix4 after = multiply(normalising(moving_grid_), multiply(moving_grid_.world_to_voxel(),
                                                                       multiply(base, translation(centre))));
    const Variable whole =
        matmul(matmul(Variable(matrix_tensor(after, device_)), matrix_exponential(generator)),
               Variable(matrix_tensor(before, device_)));
    const Variable theta = reshape(slice(whole, 0, 0, 3), {1, 3, 4});
    const Variable grid = affine_grid(theta, spatial(fixed_grid_), false);
    const Variable warped = grid_sample(Variable(moving_), grid, sampling());
    return ncc_loss(warped, Variable(fixed_), weight(grid.detach()));
  }

  double ncc(const Matrix4& matrix) const {
    const NoGrad quiet;
    const Variable zero(Tensor::zeros({6}, DType::f32, device_));
    return 1.0 - loss(matrix, {0, 0, 0}, zero, AffineModel::rigid).value().item();
  }

 private:
  static GridSampleOptions sampling() { return {cinnabar::Interpolation::linear, Boundary::zeros, false}; }

  Tensor weight(const Variable& grid) const {
    const NoGrad quiet;
    const Variable covered = grid_sample(Variable(inside_), grid, sampling());
    return mask_.defined() ? (covered * Variable(mask_)).value() : covered.value();
  }

  Device device_;
  Geometry fixed_grid_, moving_grid_;
  Tensor fixed_, moving_, inside_, mask_;
};

/// Base motion followed through optimised parameters, as one matrix.
Matrix4 updated(const Matrix4& base, const Point& centre, const Tensor& parameters, AffineModel model) {
  const NoGrad quiet;
  const Tensor host = parameters.to(Device::cpu());
  const Variable generator =
      reshape(matmul(Variable(host.reshape({1, -1})), Variable(generators(model, Device::cpu()))), {4, 4});
  const std::vector<double> values = matrix_exponential(generator).value().to_vector<double>();
  Matrix4 motion{};
  std::copy(values.begin(), values.end(), motion.begin());
  return multiply(
      base, multiply(translation(centre), multiply(motion, translation(difference({0, 0, 0}, centre)))));
}

/// Refines a matrix on one level; returns the number of iterations.
int refine(const AlignmentLevel& level, const Point& centre, AffineModel model, const AffineOptions& options,
           Matrix4& matrix) {
  LbfgsProblem problem;
  problem.evaluate = [&](const Tensor& point) -> Evaluation {
    const Variable parameters(point, true);
    const Variable loss = level.loss(matrix, centre, parameters, model);
    return {loss.value().item(), [parameters, loss] {
              loss.backward();
              return parameters.grad();
            }};
  };
  problem.first_step = [](const Tensor& direction) {
    const NoGrad quiet;
    const double length = norm(Variable(direction)).value().item();
    return 2.0 / std::max(length, 1e-12);  // a first move of 2 mm
  };
  LbfgsOptions lbfgs;
  lbfgs.max_iterations = options.iterations;
  lbfgs.history = 8;
  // The objective is smooth in a pose: no guard against geodesics that collide.
  lbfgs.max_refining_evaluations = lbfgs.max_search_evaluations;
  lbfgs.largest_gradient_growth = std::numeric_limits<double>::infinity();
  lbfgs.relative_decrease = 1e-4;
  const Tensor start = Tensor::zeros({model == AffineModel::rigid ? 6 : 12}, DType::f32, options.device);
  const LbfgsResult result = minimise_lbfgs(start, problem, lbfgs);
  matrix = updated(matrix, centre, result.point, model);
  return result.iterations;
}

std::vector<double> usable_levels(const Image& fixed, const AffineOptions& options) {
  const double finest = fixed.geometry.finest_spacing_mm();
  std::vector<double> levels;
  for (const double resolution : options.resolutions_mm) {
    if (resolution >= 0.99 * finest) levels.push_back(resolution);
  }
  if (levels.empty()) levels.push_back(finest);
  return levels;
}

}  // namespace

Point centre_of_mass(const Image& image) {
  const Tensor host = image.voxels.to(Device::cpu());
  const float* values = host.data<float>();
  const auto [nx, ny, nz] = image.geometry.extent;
  double total = 0.0;
  Point sum{0, 0, 0};
  for (std::int64_t z = 0; z < nz; ++z) {
    for (std::int64_t y = 0; y < ny; ++y) {
      for (std::int64_t x = 0; x < nx; ++x) {
        const double weight = std::max(0.0f, *values++);
        total += weight;
        sum[0] += weight * static_cast<double>(x);
        sum[1] += weight * static_cast<double>(y);
        sum[2] += weight * static_cast<double>(z);
      }
    }
  }
  if (total <= 0.0) return image.geometry.centre();
  return transform_point(image.geometry.voxel_to_world, {sum[0] / total, sum[1] / total, sum[2] / total});
}

Tensor sampling_theta(const Geometry& grid, const Geometry& image, const Matrix4& grid_to_image) {
  const Matrix4 voxel_map = multiply(image.world_to_voxel(), multiply(grid_to_image, grid.voxel_to_world));
  const Matrix4 theta = multiply(normalising(image), multiply(voxel_map, invert(normalising(grid))));
  return Tensor::from(std::vector<float>(theta.begin(), theta.begin() + 12), {1, 3, 4});
}

Tensor resample(const Image& image, const Geometry& grid, const Matrix4& grid_to_image, Device device) {
  const NoGrad quiet;
  Variable voxels(image.voxels.to(device));
  // Beyond the image lies its background, which is the lowest value where some are negative.
  const double low = std::min(0.0, -amax(-voxels).value().item());
  if (low < 0.0) voxels = voxels - low;
  const Point from = image.geometry.spacing_mm(), to = grid.spacing_mm();
  const double coarsest = std::max({to[0], to[1], to[2]});
  std::array<double, 3> sigma{};
  for (std::size_t d = 0; d < 3; ++d) {
    const double factor = coarsest / from[d];
    if (factor > 1.01) sigma[d] = 0.45 * factor;
  }
  if (std::max({sigma[0], sigma[1], sigma[2]}) > 0.0) voxels = gaussian_smooth(voxels, sigma);
  const Variable theta(sampling_theta(grid, image.geometry, grid_to_image).to(device));
  const Variable positions = affine_grid(theta, spatial(grid), false);
  const Variable sampled =
      grid_sample(voxels, positions, {cinnabar::Interpolation::linear, Boundary::zeros, false});
  return low < 0.0 ? (sampled + low).value() : sampled.value();
}

AffineAlignment align_affine(const Image& fixed, const Image& moving, const Image* fixed_mask,
                             const Matrix4* initial, const AffineOptions& options) {
  const std::vector<double> spacings = usable_levels(fixed, options);
  const Point centre = centre_of_mass(fixed);
  AffineAlignment result;
  {
    const AlignmentLevel coarse(fixed, moving, fixed_mask, spacings.front(), options.device);
    const Matrix4 centred = translation(difference(centre_of_mass(moving), centre));
    result.fixed_to_moving = kIdentity4;
    if (initial != nullptr) {
      result.fixed_to_moving = *initial;
    } else if (options.model != AffineModel::none && coarse.ncc(centred) > coarse.ncc(kIdentity4)) {
      result.fixed_to_moving = centred;
    }
  }
  const Matrix4 start = result.fixed_to_moving;
  for (std::size_t i = 0; i < spacings.size(); ++i) {
    const AlignmentLevel level(fixed, moving, fixed_mask, spacings[i], options.device);
    if (options.model != AffineModel::none && (i == 0 || options.model == AffineModel::rigid)) {
      result.iterations += refine(level, centre, AffineModel::rigid, options, result.fixed_to_moving);
    }
    if (options.model == AffineModel::affine) {
      result.iterations += refine(level, centre, AffineModel::affine, options, result.fixed_to_moving);
    }
    if (i + 1 < spacings.size()) continue;
    result.ncc_before = level.ncc(initial != nullptr ? start : kIdentity4);
    result.ncc_after = level.ncc(result.fixed_to_moving);
    if (result.ncc_after < level.ncc(start)) {
      result.fixed_to_moving = start;
      result.ncc_after = level.ncc(start);
    }
  }
  return result;
}

}  // namespace cinnabar::registration
