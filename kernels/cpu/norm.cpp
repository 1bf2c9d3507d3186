#include "kernels/norm.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/parallel.hpp"

namespace cinnabar::cpu {

namespace {

constexpr const char* kOp = "norm";
constexpr std::int64_t kChunk = 1 << 15;  // elements of one partial sum, and of a task
constexpr int kLanes = 8;                 // independent accumulators, so that a run vectorises

struct Sums {
  double first = 0.0;
  double second = 0.0;

  void add(const Sums& other) {
    first += other.first;
    second += other.second;
  }
};

/// Adds terms 0..count-1, each {first, second}.
template <class Term>
Sums sum_run(std::int64_t count, const Term& term) {
  Sums lane[kLanes];
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) lane[l].add(term(i + l));
  }
  for (; i < count; ++i) lane[0].add(term(i));
  for (int l = 1; l < kLanes; ++l) lane[0].add(lane[l]);
  return lane[0];
}

/// part(row, first, last) added over fixed chunks of every row's `size` elements, in order.
template <class Part>
std::vector<Sums> sum_rows(std::int64_t rows, std::int64_t size, const Part& part) {
  const std::int64_t chunks = std::max<std::int64_t>(1, (size + kChunk - 1) / kChunk);
  std::vector<Sums> partial(static_cast<std::size_t>(rows * chunks));
  const std::int64_t grain =
      std::max<std::int64_t>(1, kChunk / std::max<std::int64_t>(1, std::min(size, kChunk)));
  parallel_for(rows * chunks, grain, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t t = first; t < last; ++t) {
      const std::int64_t start = t % chunks * kChunk;
      partial[static_cast<std::size_t>(t)] = part(t / chunks, start, std::min(size, start + kChunk));
    }
  });
  if (chunks == 1) return partial;
  std::vector<Sums> sums(static_cast<std::size_t>(rows));
  for (std::size_t t = 0; t < partial.size(); ++t) {
    sums[t / static_cast<std::size_t>(chunks)].add(partial[t]);
  }
  return sums;
}

std::vector<double> inverse_deviations(const Tensor& variance, double epsilon) {
  std::vector<double> inverse = variance.to_vector<double>();
  for (double& value : inverse) value = 1.0 / std::sqrt(value + epsilon);
  return inverse;
}

/// Calls body(image, channel, set, offset of the plane) for every channel of every image.
template <class Body>
void for_each_plane(const NormShape& shape, const Body& body) {
  const std::int64_t grain = std::max<std::int64_t>(1, kChunk / shape.voxels);
  parallel_for(shape.images * shape.channels, grain, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t plane = first; plane < last; ++plane) {
      const std::int64_t image = plane / shape.channels;
      const std::int64_t channel = plane % shape.channels;
      body(channel, shape.set_of(image, channel), plane * shape.voxels);
    }
  });
}

void statistics(const Tensor& x, const NormShape& shape, Tensor& mean, Tensor& variance) {
  check_norm_statistics(x, shape, mean, variance);
  if (x.numel() == 0) return;
  const std::int64_t size = shape.set_size();
  const std::int64_t run = shape.across_images ? shape.voxels : size;  // contiguous elements of a set
  double* const means = mean.data<double>();
  double* const variances = variance.data<double>();
  dispatch_floating(kOp, x.dtype(), [&](auto element) {
    using T = decltype(element);
    const T* const values = x.data<T>();
    const auto shift_of = [&](std::int64_t set) {
      return static_cast<double>(values[shape.element(set, 0)]);
    };
    const auto sums = sum_rows(shape.sets(), size, [&](std::int64_t set, std::int64_t e, std::int64_t last) {
      const double shift = shift_of(set);  // keeps the squares from cancelling
      Sums sum;
      while (e < last) {
        const std::int64_t count = std::min(last - e, run - e % run);
        const T* const p = values + shape.element(set, e);
        sum.add(sum_run(count, [&](std::int64_t i) {
          const double d = static_cast<double>(p[i]) - shift;
          return Sums{d, d * d};
        }));
        e += count;
      }
      return sum;
    });
    for (std::int64_t set = 0; set < shape.sets(); ++set) {
      const Sums& sum = sums[static_cast<std::size_t>(set)];
      const double shifted = sum.first / static_cast<double>(size);
      means[set] = shift_of(set) + shifted;
      variances[set] = std::max(0.0, sum.second / static_cast<double>(size) - shifted * shifted);
    }
  });
}

void update_running(const Tensor& mean, const Tensor& variance, double momentum, const NormShape& shape,
                    Tensor& running_mean, Tensor& running_variance, Tensor& batches) {
  check_norm_update(mean, variance, momentum, shape, running_mean, running_variance, batches);
  if (batches.defined()) ++*batches.data<std::int64_t>();
  const auto size = static_cast<double>(shape.set_size());
  dispatch_floating(kOp, running_mean.dtype(), [&](auto element) {
    using T = decltype(element);
    for (std::int64_t c = 0; c < shape.channels; ++c) {
      T& running = running_mean.data<T>()[c];
      T& spread = running_variance.data<T>()[c];
      running = norm_running_value(running, mean.data<double>()[c], momentum, 1.0);
      spread = norm_running_value(spread, variance.data<double>()[c], momentum, size / (size - 1.0));
    }
  });
}

void forward(const Tensor& x, const Tensor& mean, const Tensor& variance, const Tensor& weight,
             const Tensor& bias, double epsilon, const NormShape& shape, Tensor& y) {
  check_norm_forward(x, mean, variance, weight, bias, epsilon, shape, y);
  const std::vector<double> inverse = inverse_deviations(variance, epsilon);
  const std::vector<double> means = mean.to_vector<double>();
  dispatch_floating(kOp, x.dtype(), [&](auto element) {
    using T = decltype(element);
    const T* const in = x.data<T>();
    const T* const w = weight.defined() ? weight.data<T>() : nullptr;
    const T* const b = bias.defined() ? bias.data<T>() : nullptr;
    T* const out = y.data<T>();
    for_each_plane(shape, [&](std::int64_t channel, std::int64_t set, std::int64_t offset) {
      const NormCenter<T> center(means[static_cast<std::size_t>(set)]);
      const T factor = static_cast<T>(inverse[static_cast<std::size_t>(set)]);
      const T scale = w != nullptr ? factor * w[channel] : factor;
      const T shift = b != nullptr ? b[channel] : T(0);
      for (std::int64_t i = offset; i < offset + shape.voxels; ++i) out[i] = center(in[i]) * scale + shift;
    });
  });
}

/// Per channel of every image: sums of grad_y and of grad_y z.
template <class T>
std::vector<Sums> plane_sums(const T* grad, const T* x, const std::vector<double>& means,
                             const std::vector<double>& inverse, const NormShape& shape) {
  return sum_rows(shape.images * shape.channels, shape.voxels,
                  [&](std::int64_t plane, std::int64_t first, std::int64_t last) {
                    const std::int64_t set = shape.set_of(plane / shape.channels, plane % shape.channels);
                    const NormCenter<T> center(means[static_cast<std::size_t>(set)]);
                    const T factor = static_cast<T>(inverse[static_cast<std::size_t>(set)]);
                    const T* const g = grad + plane * shape.voxels + first;
                    const T* const p = x + plane * shape.voxels + first;
                    return sum_run(last - first, [&](std::int64_t i) {
                      const auto d = static_cast<double>(g[i]);
                      return Sums{d, d * static_cast<double>(center(p[i]) * factor)};
                    });
                  });
}

void backward(const Tensor& grad_y, const Tensor& x, const Tensor& mean, const Tensor& variance,
              const Tensor& weight, double epsilon, bool constant_statistics, const NormShape& shape,
              Tensor& grad_x, Tensor& grad_weight, Tensor& grad_bias) {
  check_norm_backward(grad_y, x, mean, variance, weight, epsilon, shape, grad_x, grad_weight, grad_bias);
  const std::vector<double> inverse = inverse_deviations(variance, epsilon);
  const std::vector<double> means = mean.to_vector<double>();
  dispatch_floating(kOp, x.dtype(), [&](auto element) {
    using T = decltype(element);
    const T* const grad = grad_y.data<T>();
    const T* const in = x.data<T>();
    const T* const w = weight.defined() ? weight.data<T>() : nullptr;
    std::vector<Sums> channel(static_cast<std::size_t>(shape.channels));
    std::vector<Sums> set(static_cast<std::size_t>(shape.sets()));
    if (grad_weight.defined() || !constant_statistics) {
      const std::vector<Sums> planes = plane_sums(grad, in, means, inverse, shape);
      for (std::int64_t plane = 0; plane < shape.images * shape.channels; ++plane) {
        const std::int64_t c = plane % shape.channels;
        const Sums& sum = planes[static_cast<std::size_t>(plane)];
        const double factor = w != nullptr ? static_cast<double>(w[c]) : 1.0;
        channel[static_cast<std::size_t>(c)].add(sum);
        set[static_cast<std::size_t>(shape.set_of(plane / shape.channels, c))].add(
            {factor * sum.first, factor * sum.second});
      }
    }
    if (grad_weight.defined()) {
      for (std::int64_t c = 0; c < shape.channels; ++c) {
        grad_bias.data<T>()[c] = static_cast<T>(channel[static_cast<std::size_t>(c)].first);
        grad_weight.data<T>()[c] = static_cast<T>(channel[static_cast<std::size_t>(c)].second);
      }
    }
    if (!grad_x.defined()) return;
    T* const out = grad_x.data<T>();
    const double share = constant_statistics ? 0.0 : 1.0 / static_cast<double>(shape.set_size());
    for_each_plane(shape, [&](std::int64_t c, std::int64_t k, std::int64_t offset) {
      const NormCenter<T> center(means[static_cast<std::size_t>(k)]);
      const T factor = static_cast<T>(inverse[static_cast<std::size_t>(k)]);
      const T mean_g = static_cast<T>(share * set[static_cast<std::size_t>(k)].first);
      const T mean_gz = static_cast<T>(share * set[static_cast<std::size_t>(k)].second);
      const T scale = w != nullptr ? w[c] : T(1);
      for (std::int64_t i = offset; i < offset + shape.voxels; ++i) {
        out[i] = (grad[i] * scale - mean_g - center(in[i]) * factor * mean_gz) * factor;
      }
    });
  });
}

}  // namespace

extern const Norm norm;
const Norm norm{statistics, update_running, forward, backward};

}  // namespace cinnabar::cpu
