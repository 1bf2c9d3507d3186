#include "registration/multiresolution.hpp"

#include <chrono>

#include "autograd/affine_grid.hpp"
#include "autograd/elementwise.hpp"
#include "autograd/gaussian_smooth.hpp"
#include "autograd/grid_sample.hpp"
#include "registration/affine_alignment.hpp"

namespace cinnabar::registration {

namespace {

Tensor smoothed(const Tensor& image, double sigma_voxels) {
  if (sigma_voxels <= 0.0) return image;
  const NoGrad quiet;
  return gaussian_smooth(Variable(image), {sigma_voxels, sigma_voxels, sigma_voxels}).value();
}

Tensor scaled(const Tensor& values, double factor) {
  const NoGrad quiet;
  return (factor * Variable(values)).value();
}

/// The pair and the mask of one level, and the grid of its momentum.
struct LevelProblem {
  Geometry grid;
  ImagePair pair;
  MatchingOptions options;
};

LevelProblem problem_at(const Level& level, const ImagePair& pair, const Geometry& finest,
                        const MatchingOptions& options) {
  LevelProblem result;
  result.grid = level.shrink > 1.0 ? shrunk(finest, level.shrink) : finest;
  const std::int64_t factor = image_factor(finest.shape(3), pair.fixed.shape());
  const Geometry images = refined(finest, factor), wanted = refined(result.grid, factor);
  const auto on_level = [&](const Tensor& image) {
    return sample_on(smoothed(image, level.smoothing_voxels), images, wanted);
  };
  result.pair = {on_level(pair.moving), on_level(pair.fixed)};
  result.options = options_at(options, level.shrink);
  if (options.mask.defined()) result.options.mask = sample_on(options.mask, images, wanted);
  return result;
}

}  // namespace

MatchingOptions options_at(const MatchingOptions& finest, double h) {
  MatchingOptions options = finest;
  options.shooting.fluid.alpha /= h * h;
  options.shooting.fluid.beta /= h * h;
  options.sigma *= h;
  return options;
}

Tensor sample_on(const Tensor& values, const Geometry& from, const Geometry& to) {
  if (same_grid(from, to, 0.0)) return values;
  const NoGrad quiet;
  const Variable theta(sampling_theta(to, from, kIdentity4).to(values.device()));
  const Variable positions = affine_grid(theta, {to.extent[2], to.extent[1], to.extent[0]}, false);
  return grid_sample(Variable(values), positions, {cinnabar::Interpolation::linear, Boundary::border, false})
      .value();
}

MultiresolutionResult match_coarse_to_fine(const ImagePair& pair, const Geometry& grid,
                                           const MatchingOptions& options, const LbfgsOptions& lbfgs,
                                           const std::vector<Level>& levels,
                                           const std::function<bool(const LevelProgress&)>& observe,
                                           const Tensor& start) {
  CINNABAR_CHECK(!levels.empty(), "match", "needs at least one level");
  MultiresolutionResult result;
  result.momentum = start.defined() ? start : Tensor::zeros(grid.shape(3), DType::f32, pair.fixed.device());
  Geometry previous_grid = grid;
  double previous_h = 1.0;
  bool stopped = false;
  for (std::size_t i = 0; i < levels.size(); ++i) {
    const auto began = std::chrono::steady_clock::now();
    const LevelProblem problem = problem_at(levels[i], pair, grid, options);
    const double h = levels[i].shrink;
    const Tensor from = scaled(sample_on(result.momentum, previous_grid, problem.grid), previous_h / h);
    LbfgsOptions level_lbfgs = lbfgs;
    level_lbfgs.max_iterations = stopped ? 0 : levels[i].iterations;
    const LbfgsResult found =
        match(problem.pair, from, problem.options, level_lbfgs, [&](const LbfgsProgress& step) {
          const LevelProgress progress{static_cast<int>(i), static_cast<int>(levels.size()),
                                       levels[i].iterations, step};
          stopped = observe && !observe(progress);
          return !stopped;
        });
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - began;
    result.momentum = found.point;
    result.levels.push_back({levels[i], problem.pair.fixed.shape(), found.iterations, found.evaluations,
                             found.first_value, found.value, stopped ? StopReason::interrupted : found.reason,
                             elapsed.count()});
    previous_grid = problem.grid;
    previous_h = h;
  }
  if (!same_grid(previous_grid, grid, 0.0)) {
    result.momentum = scaled(sample_on(result.momentum, previous_grid, grid), previous_h);
  }
  return result;
}

}  // namespace cinnabar::registration
