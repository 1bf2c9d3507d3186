#include "kernels/cross_entropy.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/vector_exp.hpp"
#include "kernels/parallel.hpp"

namespace cinnabar::cpu {

namespace {

constexpr const char* kOp = "cross_entropy";
constexpr std::int64_t kGrain = 1 << 14;  // logits a task
constexpr std::int64_t kLanes = 64;       // positions whose logits of one class are read together

/// Calls body(first position, count) for runs of up to kLanes neighbours in one image, on all threads.
template <class T, class Body>
void for_each_run(const CrossEntropyCall<T>& call, const Body& body) {
  const std::int64_t grain = std::max<std::int64_t>(1, kGrain / call.classes);
  parallel_for(call.positions, grain, [&](std::int64_t first, std::int64_t last) {
    while (first < last) {
      const std::int64_t left_in_image = call.space - first % call.space;
      const std::int64_t count = std::min({kLanes, left_in_image, last - first});
      body(first, count);
      first += count;
    }
  });
}

/// The two parts of LogSumExp of x[l], x[space + l], ... for l < count.
template <class T>
void log_sum_exp(const CrossEntropyCall<T>& call, const T* x, std::int64_t count, T* largest, T* log_sum) {
  T sum[kLanes] = {};
  std::copy_n(x, count, largest);
  for (std::int64_t c = 1; c < call.classes; ++c) {
    const T* const row = x + c * call.space;
#pragma omp simd
    for (std::int64_t l = 0; l < count; ++l) largest[l] = row[l] > largest[l] ? row[l] : largest[l];
  }
  for (std::int64_t c = 0; c < call.classes; ++c) {
    const T* const row = x + c * call.space;
#pragma omp simd
    for (std::int64_t l = 0; l < count; ++l) sum[l] += vector_exp(row[l] - largest[l]);
  }
  for (std::int64_t l = 0; l < count; ++l) log_sum[l] = std::log(sum[l]);
}

void check_labels(const Tensor& logits, const Tensor& labels, const CrossEntropyOptions& options) {
  const std::int64_t* const label = labels.data<std::int64_t>();
  const std::int64_t classes = logits.shape(1);
  for (std::int64_t i = 0; i < labels.numel(); ++i) {
    CINNABAR_CHECK((label[i] >= 0 && label[i] < classes) || label[i] == options.ignore_index, kOp, "label ",
                   label[i], " is not one of ", classes, " classes");
  }
}

void forward(const Tensor& logits, const Tensor& labels, const Tensor& class_weight,
             const CrossEntropyOptions& options, Tensor& losses, Tensor& weights) {
  check_cross_entropy(logits, labels, class_weight, options);
  check_cross_entropy_values(logits, labels, losses);
  check_cross_entropy_values(logits, labels, weights);
  check_labels(logits, labels, options);
  const std::int64_t* const label = labels.data<std::int64_t>();
  dispatch_floating(kOp, logits.dtype(), [&](auto element) {
    using T = decltype(element);
    const auto call = cross_entropy_call<T>(logits, labels, class_weight, options);
    const T* const x = logits.data<T>();
    T* const loss = losses.data<T>();
    T* const weight = weights.data<T>();
    for_each_run(call, [&](std::int64_t start, std::int64_t count) {
      const T* const logit = x + call.offset(start);
      T largest[kLanes];
      T log_sum[kLanes];
      log_sum_exp(call, logit, count, largest, log_sum);
      for (std::int64_t l = 0; l < count; ++l) {
        const std::int64_t y = label[start + l];
        loss[start + l] = y == call.ignored ? T(0) : call.loss(logit + l, y, {largest[l], log_sum[l]});
        weight[start + l] = y == call.ignored ? T(0) : call.weight_of(y);
      }
    });
  });
}

void backward(const Tensor& grad_losses, const Tensor& logits, const Tensor& labels,
              const Tensor& class_weight, const CrossEntropyOptions& options, Tensor& grad_logits) {
  check_cross_entropy(logits, labels, class_weight, options);
  check_cross_entropy_values(logits, labels, grad_losses);
  check_cross_entropy_gradient(logits, grad_logits);
  check_labels(logits, labels, options);
  const std::int64_t* const label = labels.data<std::int64_t>();
  dispatch_floating(kOp, logits.dtype(), [&](auto element) {
    using T = decltype(element);
    const auto call = cross_entropy_call<T>(logits, labels, class_weight, options);
    const T* const x = logits.data<T>();
    const T* const grad = grad_losses.data<T>();
    T* const out = grad_logits.data<T>();
    for_each_run(call, [&](std::int64_t start, std::int64_t count) {
      const std::int64_t at = call.offset(start);
      T largest[kLanes];
      T log_sum[kLanes];
      T share[kLanes];
      std::int64_t target[kLanes];  // -1 where ignored
      log_sum_exp(call, x + at, count, largest, log_sum);
      for (std::int64_t l = 0; l < count; ++l) {
        const bool ignored = label[start + l] == call.ignored;
        target[l] = ignored ? -1 : label[start + l];
        share[l] = ignored ? T(0) : call.softmax_share(label[start + l]);
      }
      for (std::int64_t c = 0; c < call.classes; ++c) {
        const T* const logit = x + at + c * call.space;
        T* const result = out + at + c * call.space;
        const T* const g = grad + start;
        const T own = call.target_share(c, c);
        const T other = call.target_share(c, -1);
#pragma omp simd
        for (std::int64_t l = 0; l < count; ++l) {
          const T p = vector_exp((logit[l] - largest[l]) - log_sum[l]);
          const T slope = p * share[l] - (target[l] == c ? own : other);
          const T value = g[l] * slope;
          result[l] = target[l] < 0 ? T(0) : value;
        }
      }
    });
  });
}

}  // namespace

extern const CrossEntropy cross_entropy;
const CrossEntropy cross_entropy{forward, backward};

}  // namespace cinnabar::cpu
