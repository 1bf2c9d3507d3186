#pragma once

#include <vector>

#include "kernels/histogram.hpp"

namespace cinnabar {

/// Intensity statistics and standardisation of images, on the device they are on. Nothing here has a
/// gradient.

/// i64 [bins] counts of the values in [low, high].
Tensor histogram(const Tensor& values, std::int64_t bins, double low, double high,
                 const ForegroundRule& rule = {Foreground::all, 0.0});

/// Quantiles of the foreground, by default the non-zero voxels, at fractions in [0, 1]: linear interpolation
/// between order statistics, position fraction (count - 1). Throws Error where the foreground is empty.
std::vector<double> quantiles(const Tensor& image, const std::vector<double>& fractions,
                              const ForegroundRule& rule = {});

/// Histogram equalisation of the non-zero voxels: each becomes the interpolated cumulative share of its
/// intensity, through the centres of `bins` bins between their extremes. Zeros stay zero.
Tensor equalize_histogram(const Tensor& image, std::int64_t bins = 256);

/// Piecewise linear matching of the intensities of `moving` to those of `fixed` (Nyul, Udupa and Zhang, "New
/// variants of a method of MRI scale standardization", IEEE TMI 2000; the same knots as ITK's
/// HistogramMatchingImageFilter, with exact quantiles).
struct HistogramMatching {
  int match_points = 7;           ///< inner quantiles, evenly spaced
  bool threshold_at_mean = true;  ///< quantiles of the voxels at or above the image's mean, else of all
};
Tensor match_histogram(const Tensor& moving, const Tensor& fixed, const HistogramMatching& options = {});

}  // namespace cinnabar
