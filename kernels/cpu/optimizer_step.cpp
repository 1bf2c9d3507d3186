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

}  // namespace

extern const OptimizerStep optimizer_step;
const OptimizerStep optimizer_step{sgd, adam};

}  // namespace cinnabar::cpu
