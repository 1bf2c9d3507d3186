#include "autograd/histogram.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/reduce.hpp"

namespace cinnabar {

namespace {

double reduced(Reduction op, const Tensor& image, double scale) {
  Shape shape = image.shape();
  for (int axis = 0; axis < shape.rank(); ++axis) shape = shape.with(axis, 1);
  Tensor result = Tensor::empty(shape, image.dtype(), image.device());
  reduce_on(image.device()).forward(op, image, {}, scale, result);
  return result.item();
}

/// Reads two neighbouring order statistics at a time, so a sorted tensor may stay on its device.
double quantile_of_sorted(const Tensor& sorted, double fraction) {
  CINNABAR_CHECK(fraction >= 0.0 && fraction <= 1.0, "quantiles", "fraction ", fraction, " is not in 0 to 1");
  const std::int64_t count = sorted.numel();
  const double position = fraction * static_cast<double>(count - 1);
  const auto below = static_cast<std::int64_t>(position);
  const std::vector<double> pair =
      sorted.rows(below, std::min<std::int64_t>(2, count - below)).to_vector<double>();
  return pair.front() + (position - static_cast<double>(below)) * (pair.back() - pair.front());
}

/// The knots of one image: its minimum, the threshold, the inner quantiles above it, its maximum.
std::vector<double> matching_knots(const Tensor& image, const HistogramMatching& options) {
  const double low = reduced(Reduction::minimum, image, 1.0);
  const double mean = reduced(Reduction::sum, image, 1.0 / static_cast<double>(image.numel()));
  CINNABAR_CHECK(std::isfinite(mean), "match_histogram", "the image holds values that are not finite");
  const double threshold = options.threshold_at_mean ? mean : low;
  const Tensor sorted = histogram_on(image.device()).sort(image, {Foreground::at_least, threshold});
  // Rounding can lift the mean of a constant image above all of its values.
  if (sorted.numel() == 0)
    return std::vector<double>(static_cast<std::size_t>(options.match_points) + 3, low);
  std::vector<double> knots{low, threshold};
  for (int k = 1; k <= options.match_points; ++k) {
    const double quantile = quantile_of_sorted(sorted, static_cast<double>(k) / (options.match_points + 1));
    knots.push_back(std::max(knots.back(), quantile));
  }
  knots.push_back(std::max(knots.back(), quantile_of_sorted(sorted, 1.0)));
  return knots;
}

Tensor map_through(const Tensor& image, const ForegroundRule& rule, const std::vector<double>& from,
                   const std::vector<double>& to) {
  const auto count = static_cast<std::int64_t>(from.size());
  Tensor mapped = Tensor::empty_like(image);
  histogram_on(image.device())
      .map(image, rule, Tensor::from(from, {count}), Tensor::from(to, {count}), mapped);
  return mapped;
}

}  // namespace

Tensor histogram(const Tensor& values, std::int64_t bins, double low, double high,
                 const ForegroundRule& rule) {
  CINNABAR_CHECK(bins >= 1, "histogram", "needs at least one bin, got ", bins);
  Tensor counts = Tensor::empty({bins}, DType::i64, values.device());
  histogram_on(values.device()).count(values, rule, low, high, counts);
  return counts;
}

std::vector<double> quantiles(const Tensor& image, const std::vector<double>& fractions,
                              const ForegroundRule& rule) {
  const Tensor sorted = histogram_on(image.device()).sort(image, rule);
  CINNABAR_CHECK(sorted.numel() > 0, "quantiles", "no voxel of ", image, " belongs to the foreground");
  std::vector<double> result;
  for (const double fraction : fractions) result.push_back(quantile_of_sorted(sorted, fraction));
  return result;
}

Tensor equalize_histogram(const Tensor& image, std::int64_t bins) {
  const ForegroundRule nonzero{};
  const Tensor sorted = histogram_on(image.device()).sort(image, nonzero);
  if (sorted.numel() == 0) return image.clone();
  const double low = quantile_of_sorted(sorted, 0.0);
  const double high = quantile_of_sorted(sorted, 1.0);
  CINNABAR_CHECK(std::isfinite(low) && std::isfinite(high), "equalize_histogram",
                 "the image holds values that are not finite");
  if (low == high) return map_through(image, nonzero, {low}, {1.0});
  const std::vector<std::int64_t> counts = histogram(sorted, bins, low, high).to_vector<std::int64_t>();
  std::vector<double> centres;
  std::vector<double> shares;
  std::int64_t below = 0;
  for (std::size_t bin = 0; bin < counts.size(); ++bin) {
    below += counts[bin];
    centres.push_back(low + (static_cast<double>(bin) + 0.5) * (high - low) / static_cast<double>(bins));
    shares.push_back(static_cast<double>(below) / static_cast<double>(sorted.numel()));
  }
  return map_through(image, nonzero, centres, shares);
}

Tensor match_histogram(const Tensor& moving, const Tensor& fixed, const HistogramMatching& options) {
  CINNABAR_CHECK(options.match_points >= 1, "match_histogram", "needs at least one match point, got ",
                 options.match_points);
  CINNABAR_CHECK(moving.numel() > 0 && fixed.numel() > 0, "match_histogram", "an image is empty");
  return map_through(moving, {Foreground::all, 0.0}, matching_knots(moving, options),
                     matching_knots(fixed, options));
}

}  // namespace cinnabar
