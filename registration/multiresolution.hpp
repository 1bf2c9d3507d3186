#pragma once

#include <functional>
#include <vector>

#include "models/lddmm_matching.hpp"
#include "registration/geometry.hpp"

namespace cinnabar::registration {

/// One pyramid level: shrink factor, Gaussian smoothing in voxels of the finest images, and iterations.
struct Level {
  double shrink = 1.0;
  double smoothing_voxels = 0.0;
  int iterations = 0;
};

/// Where the optimisation stands; `level` counts from 0 (coarsest).
struct LevelProgress {
  int level = 0;
  int levels = 1;
  int max_iterations = 0;
  LbfgsProgress step;
};

struct LevelReport {
  Level level;
  Shape images;
  int iterations = 0;
  int evaluations = 0;
  double first_energy = 0.0;
  double energy = 0.0;
  StopReason reason = StopReason::iteration_limit;
  double seconds = 0.0;
};

struct MultiresolutionResult {
  Tensor momentum;  ///< [1, 3, D, H, W] on the finest grid
  std::vector<LevelReport> levels;
};

/// Coarse-to-fine geodesic matching of a pair on `grid`, or on that grid refined by a whole number. Every
/// level minimises the same physical energy: on a grid h times coarser, alpha and beta become alpha / h^2 and
/// beta / h^2, sigma becomes h sigma, and a momentum is h times smaller, so a coarse solution is carried to
/// the next level by interpolation and a factor. Images stay as many times finer than the momentum on every
/// level. `observe` returning false stops the whole optimisation after the step it saw. Starts from a
/// momentum on `grid`, or from zero.
MultiresolutionResult match_coarse_to_fine(const ImagePair& pair, const Geometry& grid,
                                           const MatchingOptions& options, const LbfgsOptions& lbfgs,
                                           const std::vector<Level>& levels,
                                           const std::function<bool(const LevelProgress&)>& observe,
                                           const Tensor& start = {});

/// Options of a level whose voxels are h times those of the finest grid.
MatchingOptions options_at(const MatchingOptions& finest, double h);

/// Trilinear sampling of a tensor on one grid at the voxels of another in the same world, border outside.
Tensor sample_on(const Tensor& values, const Geometry& from, const Geometry& to);

}  // namespace cinnabar::registration
