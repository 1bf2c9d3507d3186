#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "registration/affine_alignment.hpp"
#include "registration/multiresolution.hpp"
#include "registration/pair_preparation.hpp"
#include "registration/quicksilver.hpp"
#include "registration/voxelmorph.hpp"

namespace cinnabar::registration {

/// Sigma in voxels of a grid of that spacing h in mm: 0.2 h for LNCC, else 0.06 h.
double default_sigma(Similarity similarity, double spacing_mm);

/// Half width in voxels of the windows of LNCC: 2.4 mm, at least 1 and at most 4 voxels.
int default_lncc_radius(double image_spacing_mm);

/// How many times coarser than that grid of images the registration grid is by default: as many as bring it
/// to 2 mm, at most three, and no more than leave it 16 voxels along each axis. A velocity is smooth: a finer
/// grid costs much and gains nothing (docs/results.md).
int default_image_factor(const Geometry& images);

/// How many times as fine as a registration grid of that spacing, which a network wants, images are by
/// default: as many as bring them to the fixed image's own spacing, at most three.
int default_image_factor(const Image& fixed, double spacing_mm);

/// The model chosen on pairs of real brains (docs/results.md), the same in millimetres on every grid: in
/// voxels of a grid of that spacing, default_sigma and alpha = beta = 0.8 / h^2 with h the spacing in mm.
void set_matching_scale(MatchingOptions& matching, double spacing_mm);

/// LNCC of windows of 3^3 voxels, few time steps, at the scale of 1 mm.
MatchingOptions default_matching();

/// Everything `cinnabar register` can be told. Its methods are LDDMM (levels, no predictor), Quicksilver (a
/// predictor, no levels), Quicksilver refined by LDDMM (both) and VoxelMorph (its network, no levels).
struct RegistrationOptions {
  AffineOptions affine;
  std::optional<Matrix4> initial;  ///< fixed world to moving world
  PreparationOptions preparation;
  MatchingOptions matching = default_matching();
  LbfgsOptions lbfgs;
  std::vector<Level> levels{{4.0, 1.8, 100}, {2.0, 0.9, 60}, {1.0, 0.0, 30}};
  /// How many times as fine as the registration grid the images are that LDDMM matches.
  int image_factor = 1;
  std::shared_ptr<QuicksilverPredictor> predictor;        ///< makes the momentum to start from; none: zero
  std::shared_ptr<const VoxelmorphPredictor> voxelmorph;  ///< makes the velocity; none: another method
};

/// "lddmm", "quicksilver", "quicksilver+lddmm" or "voxelmorph".
std::string_view method_of(const RegistrationOptions& options);

/// Starts from what a predictor makes: takes over the grid and the metric it was trained on. A
/// `resolution_mm` that is set already stays. Throws InputError where the network does not say its grid.
void start_from(std::shared_ptr<QuicksilverPredictor> predictor, RegistrationOptions& options);

/// Sigma where none is given, on a grid of that spacing: that of the predictor's momenta where the similarity
/// is theirs, else that of the similarity. Throws InputError where a refinement needs what the
/// predictor's network does not say.
double default_sigma(const RegistrationOptions& options, double spacing_mm);

/// Half width of LNCC's windows where none is given: as sigma, the predictor's or by the spacing.
int default_lncc_radius(const RegistrationOptions& options, double image_spacing_mm);

/// Registers by a VoxelMorph network on the grid that it was trained on; a `resolution_mm` that is set
/// already stays. Throws InputError where the network does not say its grid.
void register_by(std::shared_ptr<const VoxelmorphPredictor> network, RegistrationOptions& options);

/// Similarity of fixed and moving before and after, on the images' grid.
struct StageSimilarity {
  double header = 0.0;  ///< aligned by the headers alone
  double affine = 0.0;  ///< after the affine stage
  double final = 0.0;   ///< after the geodesic
};

/// A part of a run, for the record.
struct StageTime {
  std::string stage;
  double seconds = 0.0;
};

/// A finished registration. Warped points go fixed -> phi^-1 -> affine -> moving.
struct RegistrationResult {
  AffineAlignment affine;
  Geometry grid;        ///< registration grid
  Geometry image_grid;  ///< of the images that were matched, `grid` or finer
  Tensor momentum;      ///< [1, 3, D, H, W] on `grid`; undefined where there is none
  Tensor velocity;      ///< stationary, [1, 3, D, H, W] in voxels of `grid`; undefined but for VoxelMorph
  Flow flow;            ///< phi and psi = phi^-1 at t = 1, in voxels of `image_grid`
  StageSimilarity ncc;
  StageSimilarity ssd;  ///< mean squared difference of scaled intensities
  double smallest_jacobian = 0.0;
  std::optional<MomentumPrediction> prediction;
  std::vector<LevelReport> levels;
  std::optional<StopReason> reason;  ///< of the optimisation, if there was one
  int iterations = 0;
  std::vector<StageTime> stages;
  double seconds = 0.0;
};

struct RegistrationObserver {
  std::function<void(const std::string& stage)> stage;
  std::function<bool(const LevelProgress&)> progress;  ///< false stops the optimisation
  std::function<void(std::int64_t done, std::int64_t total)> patches;
};

/// Whether the optimisation recomputes each RK4 step in backward: only where keeping them would take more
/// than half of the device's memory, for it costs a third more time.
bool recomputes_steps(const Shape& grid, const RegistrationOptions& options);

/// Bytes prediction and optimisation hold at their peak for a registration grid of that shape.
std::size_t estimated_peak_bytes(const Shape& grid, const RegistrationOptions& options);

/// Throws InputError, with the resolution that would fit, when the device's memory cannot hold the run.
void require_memory(const Shape& grid, const RegistrationOptions& options);

/// Affine stage, then prediction, coarse-to-fine geodesic matching or both. Throws InputError when the
/// device's memory cannot hold the run (with the resolution that would fit) or when an image is constant.
RegistrationResult register_images(const Image& fixed, const Image& moving, const Image* fixed_mask,
                                   const RegistrationOptions& options, const RegistrationObserver& observer);

}  // namespace cinnabar::registration
