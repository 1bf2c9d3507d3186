#pragma once

#include <cmath>

#include "engine/host_device.hpp"
#include "kernels/op.hpp"

namespace cinnabar {

/// Losses between two images over a whole grid.
///
/// Shapes: warped and fixed [N, C, ...] alike, with at least one spatial axis. `weight` is undefined (all 1)
/// or [N or 1, C or 1, ...] with non-negative values, a mask being 0 and 1. loss is a scalar [] of the
/// images' dtype. `sums` is scratch that forward fills for backward. A gradient tensor left undefined is not
/// computed. Kernels assign their outputs and are deterministic: sums in float64, in an order fixed by the
/// shape.
///
/// ssd: sum w (a - b)^2, and with `mean` that over sum w (0 where the weights are all 0).
/// ncc: 1 - mean over n of r_n, the weighted correlation coefficient of batch entry n over all its channels,
///   r = S_ab / sqrt(S_aa S_bb) with S_xy = sum w (x - mean x)(y - mean y).
///   Where an image is flat (S_aa at most 1e-10 of sum w (a - first voxel)^2) r and its gradient are 0.
struct Similarity {
  /// sums [N, 2]: sum w, sum w (a - b)^2.
  void (*ssd)(const Tensor& warped, const Tensor& fixed, const Tensor& weight, bool mean, Tensor& sums,
              Tensor& loss);
  void (*ssd_backward)(const Tensor& grad_loss, const Tensor& warped, const Tensor& fixed,
                       const Tensor& weight, bool mean, const Tensor& sums, Tensor& grad_warped,
                       Tensor& grad_fixed);
  /// sums [N, 6]: sum w (1, a, b, aa, bb, ab), with a and b relative to the first voxel of batch entry n.
  void (*ncc)(const Tensor& warped, const Tensor& fixed, const Tensor& weight, Tensor& sums, Tensor& loss);
  void (*ncc_backward)(const Tensor& grad_loss, const Tensor& warped, const Tensor& fixed,
                       const Tensor& weight, const Tensor& sums, Tensor& grad_warped, Tensor& grad_fixed);
};

CINNABAR_OP(Similarity, similarity);

inline constexpr int kSsdSums = 2;
inline constexpr int kNccSums = 6;

/// Extents of one call; a weight of extent 1 along N or C has stride 0 there.
struct SimilarityShape {
  std::int64_t batch = 0;
  std::int64_t channels = 0;
  std::int64_t voxels = 0;  ///< of one channel
  std::int64_t weight_batch_stride = 0;
  std::int64_t weight_channel_stride = 0;
};

/// Checks everything but gradients and returns the extents. Throws Error.
SimilarityShape similarity_shape(const Tensor& warped, const Tensor& fixed, const Tensor& weight,
                                 const Tensor& sums, int sums_per_entry, const Tensor& loss);
/// Checks the gradients that are defined.
void check_similarity_gradients(const Tensor& warped, const Tensor& grad_warped, const Tensor& grad_fixed);

/// Correlation coefficient of one batch entry and what its gradient needs, from the six sums:
/// d r / d a_i = w_i (cross (b_i - mean_b) + self_a (a_i - mean_a)), and likewise for b.
struct Correlation {
  double value;
  double mean_a;
  double mean_b;
  double cross;
  double self_a;
  double self_b;
};

CINNABAR_HD Correlation correlation_of(const double* sums) {
  const double total = sums[0];
  if (!(total > 0.0)) return {total == 0.0 ? 0.0 : total, 0.0, 0.0, 0.0, 0.0, 0.0};
  const double mean_a = sums[1] / total;
  const double mean_b = sums[2] / total;
  const double s_aa = sums[3] - sums[1] * mean_a;
  const double s_bb = sums[4] - sums[2] * mean_b;
  const double s_ab = sums[5] - sums[1] * mean_b;
  if (s_aa <= 1e-10 * sums[3] || s_bb <= 1e-10 * sums[4]) return {0.0, mean_a, mean_b, 0.0, 0.0, 0.0};
  const double norm = 1.0 / std::sqrt(s_aa * s_bb);
  const double value = s_ab * norm;
  return {value, mean_a, mean_b, norm, -value / s_aa, -value / s_bb};
}

}  // namespace cinnabar
