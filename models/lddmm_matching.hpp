#pragma once

#include <functional>
#include <string>
#include <vector>

#include "models/lbfgs.hpp"
#include "models/lddmm_shooting.hpp"

namespace cinnabar {

enum class Similarity { ssd, ncc, lncc };

/// "ssd", "ncc" or "lncc", and back; anything else throws InputError.
std::string name_of(Similarity similarity);
Similarity similarity_named(const std::string& name);

/// The energy E(m0) = 1/2 <m0, K m0> + data(I0 o psi(1), I1) + folding.
struct MatchingOptions {
  ShootingOptions shooting;
  Similarity similarity = Similarity::ssd;
  double sigma = 0.2;   ///< SSD data term: sum r^2 / (2 sigma^2); the others are scaled to the same range
  int lncc_radius = 2;  ///< half width of the LNCC window in voxels
  /// Compression is free down to this Jacobian determinant of phi and psi; below it J costs
  /// (floor - J)^2 / (floor sigma)^2, so that single voxels about to fold do not stop the whole optimisation.
  double jacobian_floor = 0.2;
  Tensor mask;  ///< optional weights on the fixed grid, [1, 1, D, H, W]
  bool checkpointed = true;
};

/// A pair on one grid: moving I0 and fixed I1, [1, 1, D, H, W], intensities about [0, 1]. That grid may be a
/// whole number of times as fine as the momentum's, for a velocity is smoother than the images it moves.
struct ImagePair {
  Tensor moving;
  Tensor fixed;
};

struct MatchingEnergy {
  double regularity = 0.0;  ///< 1/2 <m0, K m0>
  double data = 0.0;
  double folding = 0.0;  ///< penalty of Jacobians below the floor
  double total() const { return regularity + data + folding; }
};

/// How many voxels of images [1, 1, D, H, W] lie along one of a momentum [1, 3, D, H, W]; throws Error where
/// that is no whole number.
std::int64_t image_factor(const Shape& momentum, const Shape& images);

/// The flow by linear interpolation on a grid `factor` times as fine, in voxels of that grid.
Flow refined(const Flow& flow, std::int64_t factor);

/// The energy at a momentum [1, 3, D, H, W], term by term, with a graph down to the momentum: its gradient is
/// the exact one of the discrete energy. Sums over the voxels of a finer grid of images count as means over
/// those of one voxel of the momentum. Throws DivergedFlow.
struct MatchingTerms {
  Variable regularity, data, folding;
  Flow flow;                ///< on the images' grid
  Variable of_phi, of_psi;  ///< the determinants of D phi and D psi
  Variable total() const;
};
MatchingTerms matching_terms(const ImagePair& pair, const Variable& momentum, const MatchingOptions& options);

/// The data term alone, of a moving image that is warped already.
Variable matching_data(const Variable& warped, const ImagePair& pair, const MatchingOptions& options);

/// Energy at a momentum [1, 3, D, H, W] with the exact gradient of the discrete energy (reverse mode through
/// the RK4 steps), computed when `gradient` is called. `smallest_jacobian` is the least determinant of D phi
/// and D psi on the images' grid: at or below zero the map folds.
struct MatchingEvaluation {
  MatchingEnergy energy;
  double smallest_jacobian = 0.0;
  Flow flow;
  std::function<Tensor()> gradient;
};
MatchingEvaluation evaluate_matching(const ImagePair& pair, const Tensor& momentum,
                                     const MatchingOptions& options);

/// The reference's optimise-then-discretise gradient K m0 - m~(0) with the SSD data term (definitions in
/// docs/lddmm.md): not the exact gradient of the discrete energy, kept for parity with PyCA and Quicksilver.
struct ReferenceGradient {
  MatchingEnergy energy;
  Tensor gradient;          ///< K m0 - m~(0)
  Tensor adjoint_momentum;  ///< m~(0)
  Tensor adjoint_image;     ///< I~ = Splat(psi(1), -residual / sigma^2)
  Tensor residual;          ///< (I0 o psi(1) - I1) / sigma^2
  Flow flow;                ///< at t = 1
};
ReferenceGradient reference_gradient(const ImagePair& pair, const Tensor& momentum,
                                     const MatchingOptions& options);

/// Quicksilver's optimiser: m0 <- m0 - step * reference gradient. Returns the momentum and the energies
/// before each update. Throws DivergedFlow when the flow diverges (too large a step), naming the iteration.
struct DescentResult {
  Tensor momentum;
  std::vector<MatchingEnergy> energies;
};
DescentResult descend_fixed_step(const ImagePair& pair, const Tensor& start, const MatchingOptions& options,
                                 double step, int iterations);

/// The default optimiser: L-BFGS whose initial inverse Hessian is L (the Hessian of the regularity is K) with
/// gamma raised to alpha / 4. L itself would give the finest detail its full step at once, before the large
/// deformation is there, and drive geodesics into folds; this one favours no wavelength above twelve voxels.
/// Points where the map folds or the flow diverges are infeasible. `observe` sees every accepted step.
LbfgsResult match(const ImagePair& pair, const Tensor& start, const MatchingOptions& options,
                  const LbfgsOptions& lbfgs, const std::function<bool(const LbfgsProgress&)>& observe = {});

}  // namespace cinnabar
