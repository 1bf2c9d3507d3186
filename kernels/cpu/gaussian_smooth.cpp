#include "kernels/gaussian_smooth.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "kernels/parallel.hpp"

namespace cinnabar::cpu {
namespace {

/// Weights of one axis and their tails: tail[m] = sum of w_k over k >= m, which is what a face voxel collects
/// from the output m voxels away.
template <class T>
struct Taps {
  std::int64_t radius = 0;
  std::vector<T> weight;
  std::vector<T> tail;
};

template <class T>
Taps<T> taps_of(double sigma_voxels) {
  const std::vector<double> weights = gaussian_weights(sigma_voxels);
  Taps<T> taps;
  taps.radius = static_cast<std::int64_t>(weights.size()) - 1;
  taps.tail.resize(weights.size());
  double tail = 0.0;
  for (std::size_t k = weights.size(); k-- > 0;) {
    tail += weights[k];
    taps.tail[k] = static_cast<T>(tail);
  }
  for (const double weight : weights) taps.weight.push_back(static_cast<T>(weight));
  return taps;
}

/// What output i takes from input j, both in [0, extent) and at most a radius apart.
template <class T>
T weight_between(const Taps<T>& taps, std::int64_t extent, std::int64_t i, std::int64_t j) {
  const auto distance = static_cast<std::size_t>(std::abs(i - j));
  return j == 0 || j == extent - 1 ? taps.tail[distance] : taps.weight[distance];
}

constexpr std::int64_t kColumns = 1024;  // accumulators of one task: 8 KiB in float64, half of L1 at most

/// An axis other than x: whole rows are added up, so the loop over the inner axes vectorises.
template <class T>
void smooth_rows(const T* source, const SmoothedAxis& axis, const Taps<T>& taps, bool transposed, T* target) {
  const std::int64_t n = axis.extent;
  const std::int64_t blocks = (axis.inner + kColumns - 1) / kColumns;
  parallel_for(
      axis.outer * blocks * n, 16 + 4096 / axis.inner, [&](std::int64_t first_task, std::int64_t last_task) {
        for (std::int64_t task = first_task; task < last_task; ++task) {
          const std::int64_t i = task % n;
          const std::int64_t first = task / n % blocks * kColumns;
          const std::int64_t count = std::min(kColumns, axis.inner - first);
          const T* image = source + task / n / blocks * n * axis.inner + first;
          T* out = target + (task / n / blocks * n + i) * axis.inner + first;
          std::fill(out, out + count, T(0));
          const std::int64_t last = std::min(i + taps.radius, n - 1);
          for (std::int64_t j = std::max<std::int64_t>(i - taps.radius, 0); j <= last; ++j) {
            const T weight = transposed ? weight_between(taps, n, j, i) : weight_between(taps, n, i, j);
            const T* row = image + j * axis.inner;
            for (std::int64_t k = 0; k < count; ++k) out[k] += weight * row[k];
          }
        }
      });
}

/// The x axis: each row is padded into a buffer, clamped or with zeros, and filtered tap by tap.
template <class T>
void smooth_along_x(const T* source, const SmoothedAxis& axis, const Taps<T>& taps, bool transposed,
                    T* target) {
  const std::int64_t n = axis.extent;
  const std::int64_t radius = taps.radius;
  parallel_for(axis.outer, 1 + 8192 / n, [&](std::int64_t first, std::int64_t last) {
    std::vector<T> padded(static_cast<std::size_t>(n + 2 * radius), T(0));
    for (std::int64_t row = first; row < last; ++row) {
      const T* in = source + row * n;
      T* out = target + row * n;
      T* middle = padded.data() + radius;
      std::copy(in, in + n, middle);
      if (!transposed) {
        std::fill(padded.data(), middle, in[0]);
        std::fill(middle + n, middle + n + radius, in[n - 1]);
      }
      for (std::int64_t x = 0; x < n; ++x) out[x] = taps.weight[0] * middle[x];
      for (std::int64_t k = 1; k <= radius; ++k) {
        const T weight = taps.weight[static_cast<std::size_t>(k)];
        for (std::int64_t x = 0; x < n; ++x) out[x] += weight * (middle[x - k] + middle[x + k]);
      }
      if (!transposed) continue;
      const std::int64_t reach = std::min(radius, n - 1);
      out[0] = out[n - 1] = T(0);
      for (std::int64_t k = 0; k <= reach; ++k) {
        out[0] += taps.tail[static_cast<std::size_t>(k)] * in[k];
        out[n - 1] += taps.tail[static_cast<std::size_t>(k)] * in[n - 1 - k];
      }
    }
  });
}

template <class T>
void smooth(const Tensor& input, const GaussianSigma& sigma_voxels, bool transposed, Tensor& output) {
  const std::vector<SmoothedAxis> axes = smoothed_axes(input, sigma_voxels, output);
  if (axes.empty()) return output.copy_from(input);
  Tensor spare = axes.size() > 1 ? Tensor::empty_like(input) : Tensor{};
  const T* source = input.data<T>();
  for (std::size_t k = 0; k < axes.size(); ++k) {
    // The last pass must end in the output, so the targets alternate backwards from it.
    Tensor& target = (axes.size() - 1 - k) % 2 == 0 ? output : spare;
    const Taps<T> taps = taps_of<T>(axes[k].sigma_voxels);
    const auto pass = axes[k].inner == 1 ? smooth_along_x<T> : smooth_rows<T>;
    pass(source, axes[k], taps, transposed, target.data<T>());
    source = target.data<T>();
  }
}

void forward(const Tensor& input, const GaussianSigma& sigma_voxels, Tensor& output) {
  dispatch_floating("gaussian_smooth", input.dtype(),
                    [&](auto type) { smooth<decltype(type)>(input, sigma_voxels, false, output); });
}

void backward(const Tensor& grad_output, const GaussianSigma& sigma_voxels, Tensor& grad_input) {
  dispatch_floating("gaussian_smooth", grad_output.dtype(),
                    [&](auto type) { smooth<decltype(type)>(grad_output, sigma_voxels, true, grad_input); });
}

}  // namespace

extern const GaussianSmooth gaussian_smooth;
const GaussianSmooth gaussian_smooth{forward, backward};

}  // namespace cinnabar::cpu
