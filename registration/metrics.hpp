#pragma once

#include <cstdint>
#include <set>
#include <vector>

#include "registration/image.hpp"

namespace cinnabar::registration {

/// Throws InputError naming both files and both grids unless the grids agree.
void require_same_grid(const Geometry& a, const std::string& a_path, const Geometry& b,
                       const std::string& b_path);

/// How alike two images on one grid are, over the voxels where the mask is not 0 (all without a mask).
struct ImageSimilarity {
  double ssd = 0.0;  ///< sum of squared differences
  double mse = 0.0;  ///< ssd per voxel
  double ncc = 0.0;  ///< Pearson's correlation; NaN when an image is constant there
  std::int64_t voxels = 0;
};
ImageSimilarity compare_images(const Image& a, const Image& b, const LabelImage* mask = nullptr);

/// Which labels count: those in `only` (all when empty) that are not in `ignored`. 0 never counts.
struct LabelSelection {
  std::set<std::int32_t> only;
  std::set<std::int32_t> ignored;
  bool contains(std::int32_t label) const {
    return label != 0 && (only.empty() || only.contains(label)) && !ignored.contains(label);
  }
};

/// Overlap of warped labels with a reference on one grid.
struct LabelOverlap {
  std::int32_t label = 0;
  std::int64_t warped_voxels = 0;
  std::int64_t reference_voxels = 0;
  std::int64_t common_voxels = 0;
  double dice() const;            ///< 2 common / (warped + reference)
  double target_overlap() const;  ///< common / reference; NaN when the reference lacks the label
};
struct LabelReport {
  std::vector<LabelOverlap> labels;  ///< every selected label of either image, in order
  double mean_dice = 0.0;            ///< over those labels; one that only one image has counts as 0
  double mean_target_overlap = 0.0;  ///< over the labels the reference has
  double union_dice = 0.0;           ///< Dice of the unions of all selected labels
};
LabelReport compare_labels(const LabelImage& warped, const LabelImage& reference,
                           const LabelSelection& selection = {});

/// det(I + du/dx) of x -> x + u(x) in world coordinates, f32 [1, 1, D, H, W] on the field's grid. Central
/// differences, one-sided on the faces, so it is 1 for no displacement whatever the voxel size or
/// orientation.
Tensor jacobian_determinant(const DisplacementField& field);

struct JacobianStatistics {
  std::int64_t voxels = 0;
  std::int64_t non_positive = 0;
  double minimum = 0.0;
  double maximum = 0.0;
  double mean = 0.0;
  double sd_log = 0.0;  ///< standard deviation of log J over the voxels where J > 0
  double share_non_positive() const {
    return voxels > 0 ? static_cast<double>(non_positive) / static_cast<double>(voxels) : 0.0;
  }
};
/// Over the voxels where the mask (on the same grid) is not 0.
JacobianStatistics jacobian_statistics(const Tensor& determinant, const LabelImage* mask = nullptr);

/// How far a point lands from where it started when a field and then its inverse is applied, in mm, over the
/// grid of `forward` where the mask is not 0. Points that the forward field carries off the inverse's grid
/// are left out and counted.
struct InverseConsistency {
  double mean_mm = 0.0;
  double p95_mm = 0.0;
  double maximum_mm = 0.0;
  std::int64_t voxels = 0;
  std::int64_t left_out = 0;
};
InverseConsistency inverse_consistency(const DisplacementField& forward, const DisplacementField& inverse,
                                       const LabelImage* mask = nullptr);

}  // namespace cinnabar::registration
