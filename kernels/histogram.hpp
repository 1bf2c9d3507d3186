#pragma once

#include "engine/host_device.hpp"
#include "kernels/op.hpp"

namespace cinnabar {

/// Which voxels belong to the foreground. NaN never does.
enum class Foreground {
  all,
  nonzero,   ///< value != 0
  at_least,  ///< value >= threshold
};

struct ForegroundRule {
  Foreground kind = Foreground::nonzero;
  double threshold = 0.0;

  template <class T>
  CINNABAR_HD bool contains(T value) const {
    if (kind == Foreground::nonzero) return value < T(0) || value > T(0);
    if (kind == Foreground::at_least) return value >= static_cast<T>(threshold);
    return value == value;
  }
};

/// Counting, sorting and remapping of intensities. None of it has a gradient. Tensors of any shape, f32 (and
/// f64 on the CPU). Deterministic; outputs are assigned.
struct Histogram {
  /// counts i64 [bins] of the foreground values in [low, high]: bin floor((v - low) bins / (high - low)),
  /// high itself in the last bin; other values are left out.
  void (*count)(const Tensor& values, const ForegroundRule& rule, double low, double high, Tensor& counts);
  /// The foreground values in ascending order, as a new tensor [count].
  Tensor (*sort)(const Tensor& values, const ForegroundRule& rule);
  /// Replaces foreground values by piecewise linear interpolation through (from[k], to[k]), constant beyond
  /// the end knots; other values stay. `from` ascends (equal neighbours jump to the later one), both [knots]
  /// on the CPU in f64.
  void (*map)(const Tensor& values, const ForegroundRule& rule, const Tensor& from, const Tensor& to,
              Tensor& mapped);
};

CINNABAR_OP(Histogram, histogram);

/// Bin of a value in [low, high], or -1; computed in float64 on every device.
CINNABAR_HD std::int64_t histogram_bin(double value, double low, double high, std::int64_t bins) {
  if (!(value >= low && value <= high)) return -1;
  const auto bin = static_cast<std::int64_t>((value - low) * static_cast<double>(bins) / (high - low));
  return bin < bins ? bin : bins - 1;
}

/// Interpolates between sorted knots.
template <class T>
CINNABAR_HD T interpolate_knots(T value, const T* from, const T* to, std::int64_t knots) {
  if (value < from[0]) return to[0];
  std::int64_t low = 0;  // the last knot at or below the value
  std::int64_t end = knots;
  while (end - low > 1) {
    const std::int64_t middle = (low + end) / 2;
    if (from[middle] <= value) {
      low = middle;
    } else {
      end = middle;
    }
  }
  if (low == knots - 1) return to[low];
  const T weight = (value - from[low]) / (from[low + 1] - from[low]);
  return to[low] + weight * (to[low + 1] - to[low]);
}

/// Checks of the calls above. Throw Error.
void check_histogram_count(const Tensor& values, double low, double high, const Tensor& counts);
void check_histogram_map(const Tensor& values, const Tensor& from, const Tensor& to, const Tensor& mapped);

}  // namespace cinnabar
