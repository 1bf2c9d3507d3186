#include "kernels/similarity.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "kernels/parallel.hpp"

namespace cinnabar::cpu {
namespace {

constexpr std::int64_t kChunk = 16384;  // voxels of one partial sum
constexpr std::int64_t kLanes = 8;      // partial sums side by side, so that the loop vectorises

/// One channel of both images and the weight, which may be null.
template <class T>
struct Plane {
  const T* a;
  const T* b;
  const T* weight;
};

template <class T>
Plane<T> plane_at(const Tensor& warped, const Tensor& fixed, const Tensor& weight,
                  const SimilarityShape& shape, std::int64_t plane) {
  const std::int64_t n = plane / shape.channels;
  const std::int64_t c = plane % shape.channels;
  const std::int64_t at = n * shape.weight_batch_stride + c * shape.weight_channel_stride;
  return {warped.data<T>() + plane * shape.voxels, fixed.data<T>() + plane * shape.voxels,
          weight.defined() ? weight.data<T>() + at : nullptr};
}

/// Adds `term(a, b, w, out[Count])` over all voxels of each batch entry into sums [N, Count].
template <class T, int Count, class Term>
void accumulate(const Tensor& warped, const Tensor& fixed, const Tensor& weight, const SimilarityShape& shape,
                const Term& term, Tensor& sums) {
  using Lanes = std::array<std::array<double, kLanes>, Count>;
  const std::int64_t chunks = (shape.voxels + kChunk - 1) / kChunk;
  const std::int64_t planes = shape.batch * shape.channels;
  std::vector<std::array<double, Count>> partial(static_cast<std::size_t>(planes * chunks));
  parallel_for(planes * chunks, 1, [&](std::int64_t first_task, std::int64_t last_task) {
    for (std::int64_t task = first_task; task < last_task; ++task) {
      const std::int64_t n = task / chunks / shape.channels;
      const Plane<T> plane = plane_at<T>(warped, fixed, weight, shape, task / chunks);
      const double a0 = warped.data<T>()[n * shape.channels * shape.voxels];
      const double b0 = fixed.data<T>()[n * shape.channels * shape.voxels];
      const std::int64_t first = task % chunks * kChunk;
      const std::int64_t last = std::min(first + kChunk, shape.voxels);
      Lanes lanes{};
      const auto add = [&](std::int64_t i, std::size_t lane) {
        const double w = plane.weight != nullptr ? static_cast<double>(plane.weight[i]) : 1.0;
        const std::array<double, Count> values = term(plane.a[i], plane.b[i], a0, b0, w);
        for (std::size_t k = 0; k < Count; ++k) lanes[k][lane] += values[k];
      };
      std::int64_t i = first;
      for (; i + kLanes <= last; i += kLanes) {
        for (std::int64_t lane = 0; lane < kLanes; ++lane) add(i + lane, static_cast<std::size_t>(lane));
      }
      for (; i < last; ++i) add(i, 0);
      for (std::size_t k = 0; k < Count; ++k) {
        double total = 0.0;
        for (const double value : lanes[k]) total += value;
        partial[static_cast<std::size_t>(task)][k] = total;
      }
    }
  });
  const std::size_t per_entry = static_cast<std::size_t>(shape.channels * chunks);
  double* target = sums.data<double>();
  for (std::size_t n = 0; n < static_cast<std::size_t>(shape.batch); ++n) {
    std::fill(target + n * Count, target + (n + 1) * Count, 0.0);
    for (std::size_t chunk = n * per_entry; chunk < (n + 1) * per_entry; ++chunk) {
      for (std::size_t k = 0; k < Count; ++k) target[n * Count + k] += partial[chunk][k];
    }
  }
}

/// grad_warped(i) = of_a(n, a, b, w), grad_fixed(i) = of_b(n, a, b, w), where they are wanted.
template <class T, class GradA, class GradB>
void assign_gradients(const Tensor& warped, const Tensor& fixed, const Tensor& weight,
                      const SimilarityShape& shape, const GradA& of_a, const GradB& of_b, Tensor& grad_warped,
                      Tensor& grad_fixed) {
  const std::int64_t chunks = (shape.voxels + kChunk - 1) / kChunk;
  parallel_for(
      shape.batch * shape.channels * chunks, 1, [&](std::int64_t first_task, std::int64_t last_task) {
        for (std::int64_t task = first_task; task < last_task; ++task) {
          const auto n = static_cast<std::size_t>(task / chunks / shape.channels);
          const Plane<T> plane = plane_at<T>(warped, fixed, weight, shape, task / chunks);
          const std::int64_t start = task / chunks * shape.voxels;
          const std::int64_t first = task % chunks * kChunk;
          const std::int64_t last = std::min(first + kChunk, shape.voxels);
          const auto assign = [&](const auto& gradient, T* target) {
            for (std::int64_t i = first; i < last; ++i) {
              target[i] =
                  gradient(n, plane.a[i], plane.b[i], plane.weight != nullptr ? plane.weight[i] : T(1));
            }
          };
          if (grad_warped.defined()) assign(of_a, grad_warped.data<T>() + start);
          if (grad_fixed.defined()) assign(of_b, grad_fixed.data<T>() + start);
        }
      });
}

/// sum w (a - b)^2 and sum w over the whole batch.
std::array<double, 2> ssd_totals(const Tensor& sums) {
  std::array<double, 2> totals{};
  for (std::int64_t n = 0; n < sums.shape(0); ++n) {
    totals[0] += sums.data<double>()[n * kSsdSums];
    totals[1] += sums.data<double>()[n * kSsdSums + 1];
  }
  return totals;
}

void ssd(const Tensor& warped, const Tensor& fixed, const Tensor& weight, bool mean, Tensor& sums,
         Tensor& loss) {
  const SimilarityShape shape = similarity_shape(warped, fixed, weight, sums, kSsdSums, loss);
  dispatch_floating("similarity", warped.dtype(), [&](auto type) {
    using T = decltype(type);
    const auto term = [](double a, double b, double, double, double w) {
      return std::array<double, kSsdSums>{w, w * (a - b) * (a - b)};
    };
    accumulate<T, kSsdSums>(warped, fixed, weight, shape, term, sums);
  });
  const auto [total, squares] = ssd_totals(sums);
  loss.fill(mean ? (total != 0.0 ? squares / total : 0.0) : squares);
}

void ssd_backward(const Tensor& grad_loss, const Tensor& warped, const Tensor& fixed, const Tensor& weight,
                  bool mean, const Tensor& sums, Tensor& grad_warped, Tensor& grad_fixed) {
  const SimilarityShape shape = similarity_shape(warped, fixed, weight, sums, kSsdSums, grad_loss);
  check_similarity_gradients(warped, grad_warped, grad_fixed);
  const double total = ssd_totals(sums)[0];
  const double factor = 2.0 * grad_loss.item() * (mean ? (total != 0.0 ? 1.0 / total : 0.0) : 1.0);
  dispatch_floating("similarity", warped.dtype(), [&](auto type) {
    using T = decltype(type);
    const T scale = static_cast<T>(factor);
    const auto of_a = [scale](std::size_t, T a, T b, T w) { return scale * w * (a - b); };
    const auto of_b = [scale](std::size_t, T a, T b, T w) { return scale * w * (b - a); };
    assign_gradients<T>(warped, fixed, weight, shape, of_a, of_b, grad_warped, grad_fixed);
  });
}

void ncc(const Tensor& warped, const Tensor& fixed, const Tensor& weight, Tensor& sums, Tensor& loss) {
  const SimilarityShape shape = similarity_shape(warped, fixed, weight, sums, kNccSums, loss);
  dispatch_floating("similarity", warped.dtype(), [&](auto type) {
    using T = decltype(type);
    const auto term = [](double a, double b, double a0, double b0, double w) {
      const double da = a - a0;
      const double db = b - b0;
      return std::array<double, kNccSums>{w, w * da, w * db, w * da * da, w * db * db, w * da * db};
    };
    accumulate<T, kNccSums>(warped, fixed, weight, shape, term, sums);
  });
  double total = 0.0;
  for (std::int64_t n = 0; n < shape.batch; ++n) {
    total += correlation_of(sums.data<double>() + n * kNccSums).value;
  }
  loss.fill(1.0 - total / static_cast<double>(shape.batch));
}

void ncc_backward(const Tensor& grad_loss, const Tensor& warped, const Tensor& fixed, const Tensor& weight,
                  const Tensor& sums, Tensor& grad_warped, Tensor& grad_fixed) {
  const SimilarityShape shape = similarity_shape(warped, fixed, weight, sums, kNccSums, grad_loss);
  check_similarity_gradients(warped, grad_warped, grad_fixed);
  const double factor = -grad_loss.item() / static_cast<double>(shape.batch);
  dispatch_floating("similarity", warped.dtype(), [&](auto type) {
    using T = decltype(type);
    struct Terms {
      T mean_a, mean_b, cross, self_a, self_b;
    };
    std::vector<Terms> terms;
    for (std::int64_t n = 0; n < shape.batch; ++n) {
      const Correlation r = correlation_of(sums.data<double>() + n * kNccSums);
      const std::int64_t origin = n * shape.channels * shape.voxels;
      terms.push_back({static_cast<T>(warped.data<T>()[origin] + r.mean_a),
                       static_cast<T>(fixed.data<T>()[origin] + r.mean_b), static_cast<T>(factor * r.cross),
                       static_cast<T>(factor * r.self_a), static_cast<T>(factor * r.self_b)});
    }
    const auto of_a = [&](std::size_t n, T a, T b, T w) {
      const Terms& t = terms[n];
      return w * (t.cross * (b - t.mean_b) + t.self_a * (a - t.mean_a));
    };
    const auto of_b = [&](std::size_t n, T a, T b, T w) {
      const Terms& t = terms[n];
      return w * (t.cross * (a - t.mean_a) + t.self_b * (b - t.mean_b));
    };
    assign_gradients<T>(warped, fixed, weight, shape, of_a, of_b, grad_warped, grad_fixed);
  });
}

}  // namespace

extern const Similarity similarity;
const Similarity similarity{ssd, ssd_backward, ncc, ncc_backward};

}  // namespace cinnabar::cpu
