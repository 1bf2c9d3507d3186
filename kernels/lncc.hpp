#pragma once

#include <cmath>

#include "engine/host_device.hpp"
#include "kernels/op.hpp"

namespace cinnabar {

struct LnccOptions {
  int radius = 4;         ///< the window is (2 radius + 1)^3 voxels, cut off at the faces; 1 to 8
  double epsilon = 1e-8;  ///< a product of variances: windows that are flatter count less
};

/// Local squared normalised cross correlation (Avants et al., "Symmetric diffeomorphic image registration
/// with cross-correlation", Medical Image Analysis 2008, eq. 3) as a loss. Flat windows are alike, a flat and
/// a lively one are not, and the loss of an image and itself is 0, its least value: epsilon in the
/// denominator alone would reward contrast.
///
/// Shapes: warped and fixed [N, C, H, W] or [N, C, D, H, W] alike; `mask` undefined or of the same rank with
/// N or 1 and C or 1, a voxel counting where it is above 0. loss is a scalar [] of the images' dtype, `sums`
/// f64 [2] scratch that forward fills for backward (sum of c, number of voxels).
/// With means over the counting voxels of the window round x:
///   cov = mean(ab) - mean(a) mean(b),  var_a = mean(aa) - mean(a)^2,
///   c(x) = (cov^2 + s epsilon) / (var_a var_b + epsilon),  loss = 1 - mean of c over the counting voxels (1
///   where none), where s = 4 (var_a + t) (var_b + t) / (var_a + var_b + 2 t)^2, t^2 = epsilon, says how far
///   the variances are alike, 0 to 1.
/// Window sums are running sums, so the cost does not grow with radius^3. The CPU adds in float64. CUDA
/// rounds both images to 24 bits of their largest magnitude and then adds exactly, in 64-bit integers.
/// Kernels assign their outputs and are deterministic; a gradient left undefined is not computed.
struct Lncc {
  void (*forward)(const Tensor& warped, const Tensor& fixed, const Tensor& mask, const LnccOptions& options,
                  Tensor& sums, Tensor& loss);
  void (*backward)(const Tensor& grad_loss, const Tensor& warped, const Tensor& fixed, const Tensor& mask,
                   const LnccOptions& options, const Tensor& sums, Tensor& grad_warped, Tensor& grad_fixed);
};

CINNABAR_OP(Lncc, lncc);

inline constexpr int kLargestLnccRadius = 8;

/// Extents of one call with 2-D written as depth 1.
struct LnccShape {
  std::int64_t images = 0;  ///< batch times channels
  std::int64_t channels = 0;
  std::int64_t depth = 1;
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::int64_t mask_batch_stride = 0;
  std::int64_t mask_channel_stride = 0;

  CINNABAR_HD std::int64_t voxels() const { return depth * height * width; }
  /// First element of the mask of an image.
  CINNABAR_HD std::int64_t mask_offset(std::int64_t image) const {
    return image / channels * mask_batch_stride + image % channels * mask_channel_stride;
  }
};

/// Checks everything but gradients and returns the extents. Throws Error.
LnccShape lncc_shape(const Tensor& warped, const Tensor& fixed, const Tensor& mask,
                     const LnccOptions& options, const Tensor& sums, const Tensor& loss);
/// Checks the gradients that are defined.
void check_lncc_gradients(const Tensor& warped, const Tensor& grad_warped, const Tensor& grad_fixed);

/// c of one window and its derivatives, all divided by the number of voxels in the window where a sum over
/// windows follows: d c / d a_j = cross (b_j - mean_b) + self_a (a_j - mean_a), and likewise for b.
template <class T>
struct LocalCorrelation {
  T value;
  T cross;
  T self_a;
  T self_b;
};

template <class T>
CINNABAR_HD LocalCorrelation<T> local_correlation(T count, T cov, T var_a, T var_b, T epsilon) {
  // Rounding can leave a flat window with a variance just below zero.
  var_a = var_a > T(0) ? var_a : T(0);
  var_b = var_b > T(0) ? var_b : T(0);
  const T flat = std::sqrt(epsilon);
  const T total = T(1) / (var_a + var_b + T(2) * flat);
  const T share_a = (var_a + flat) * total;
  const T share_b = (var_b + flat) * total;
  const T slope = T(4) * epsilon * (share_b - share_a) * total;  // of epsilon s, divided by the other share
  const T inverse = T(1) / (var_a * var_b + epsilon);
  const T value = (cov * cov + T(4) * share_a * share_b * epsilon) * inverse;
  const T scale = T(2) * inverse / count;
  return {value, scale * cov, scale * (slope * share_b - value * var_b),
          scale * (-slope * share_a - value * var_a)};
}

}  // namespace cinnabar
