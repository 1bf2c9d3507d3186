#include "kernels/optimizer_step.hpp"

#include <utility>

#include "kernels/parallel.hpp"

namespace cinnabar::cpu {

namespace {

constexpr std::int64_t kGrain = 1 << 14;  // elements a task: 64 KiB of each f32 array

void sgd(std::span<SgdParameter> parameters, const SgdOptions& options) {
  check_sgd(parameters, options);
  for (SgdParameter& p : parameters) {
    dispatch_floating("optimizer_step", p.value.dtype(), [&](auto element) {
      using T = decltype(element);
      const SgdNumbers<T> update(options);
      const T share = static_cast<T>(sgd_share(options, p));
      T* const value = p.value.data<T>();
      const T* const grad = std::as_const(p.grad).data<T>();
      T* const buffer = p.momentum.defined() ? p.momentum.data<T>() : nullptr;
      parallel_for(p.value.numel(), kGrain, [&](std::int64_t first, std::int64_t last) {
        if (buffer == nullptr) {
          for (std::int64_t i = first; i < last; ++i) update(value[i], grad[i], nullptr, share);
        } else {
          for (std::int64_t i = first; i < last; ++i) update(value[i], grad[i], buffer + i, share);
        }
      });
    });
  }
}

void adam(std::span<AdamParameter> parameters, const AdamOptions& options) {
  check_adam(parameters, options);
  for (AdamParameter& p : parameters) {
    dispatch_floating("optimizer_step", p.value.dtype(), [&](auto element) {
      using T = decltype(element);
      const AdamNumbers<T> update(options);
      const AdamStepSize size = adam_step_size(options, p.step);
      const T rate = static_cast<T>(size.rate);
      const T root = static_cast<T>(size.root);
      T* const value = p.value.data<T>();
      const T* const grad = std::as_const(p.grad).data<T>();
      T* const m = p.first_moment.data<T>();
      T* const v = p.second_moment.data<T>();
      T* const largest = p.largest.defined() ? p.largest.data<T>() : nullptr;
      parallel_for(p.value.numel(), kGrain, [&](std::int64_t first, std::int64_t last) {
        if (largest == nullptr) {
#pragma omp simd
          for (std::int64_t i = first; i < last; ++i)
            update(value[i], grad[i], m[i], v[i], nullptr, rate, root);
        } else {
#pragma omp simd
          for (std::int64_t i = first; i < last; ++i) {
            update(value[i], grad[i], m[i], v[i], largest + i, rate, root);
          }
        }
      });
    });
  }
}

void unscale(std::span<Tensor> gradients, double factor, Tensor& overflow) {
  check_unscale(gradients, factor, overflow);
  bool finite = true;
  for (Tensor& gradient : gradients) {
    dispatch_floating("optimizer_step", gradient.dtype(), [&](auto element) {
      using T = decltype(element);
      T* const values = gradient.data<T>();
      const T scale = static_cast<T>(factor);
      const double bad = parallel_sum(gradient.numel(), kGrain, [&](std::int64_t first, std::int64_t last) {
        int any = 0;
        for (std::int64_t i = first; i < last; ++i) {
          any |= is_finite(values[i]) ? 0 : 1;
          values[i] *= scale;
        }
        return static_cast<double>(any);
      });
      finite = finite && bad == 0.0;
    });
  }
  *overflow.data<std::int32_t>() = finite ? 0 : 1;
}

}  // namespace

extern const OptimizerStep optimizer_step;
const OptimizerStep optimizer_step{sgd, adam, unscale};

}  // namespace cinnabar::cpu
