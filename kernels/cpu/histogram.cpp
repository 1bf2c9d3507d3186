#include "kernels/histogram.hpp"

#include <algorithm>
#include <mutex>
#include <vector>

#include "kernels/parallel.hpp"

namespace cinnabar::cpu {
namespace {

constexpr std::int64_t kGrain = 1 << 16;

template <class T>
void run_count(const Tensor& values, const ForegroundRule& rule, double low, double high, Tensor& counts) {
  const T* source = values.data<T>();
  std::int64_t* target = counts.data<std::int64_t>();
  const std::int64_t bins = counts.numel();
  std::mutex merging;
  parallel_for(values.numel(), kGrain, [&](std::int64_t first, std::int64_t last) {
    std::vector<std::int64_t> own(static_cast<std::size_t>(bins), 0);
    for (std::int64_t i = first; i < last; ++i) {
      if (!rule.contains(source[i])) continue;
      const std::int64_t bin = histogram_bin(source[i], low, high, bins);
      if (bin >= 0) ++own[static_cast<std::size_t>(bin)];
    }
    const std::lock_guard lock(merging);
    for (std::int64_t bin = 0; bin < bins; ++bin) target[bin] += own[static_cast<std::size_t>(bin)];
  });
}

template <class T>
Tensor run_sort(const Tensor& values, const ForegroundRule& rule) {
  const T* source = values.data<T>();
  std::vector<T> chosen;
  std::copy_if(source, source + values.numel(), std::back_inserter(chosen),
               [&](T value) { return rule.contains(value); });
  std::sort(chosen.begin(), chosen.end());
  return Tensor::from(chosen, {static_cast<std::int64_t>(chosen.size())});
}

template <class T>
void run_map(const Tensor& values, const ForegroundRule& rule, const Tensor& from, const Tensor& to,
             Tensor& mapped) {
  const Tensor knots = from.to(values.dtype());
  const Tensor targets = to.to(values.dtype());
  const T* source = values.data<T>();
  T* target = mapped.data<T>();
  parallel_for(values.numel(), kGrain, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      target[i] = rule.contains(source[i])
                      ? interpolate_knots(source[i], knots.data<T>(), targets.data<T>(), knots.numel())
                      : source[i];
    }
  });
}

void count(const Tensor& values, const ForegroundRule& rule, double low, double high, Tensor& counts) {
  check_histogram_count(values, low, high, counts);
  counts.fill(0.0);
  dispatch_floating("histogram", values.dtype(),
                    [&](auto type) { run_count<decltype(type)>(values, rule, low, high, counts); });
}

Tensor sort(const Tensor& values, const ForegroundRule& rule) {
  return dispatch_floating("histogram", values.dtype(),
                           [&](auto type) { return run_sort<decltype(type)>(values, rule); });
}

void map(const Tensor& values, const ForegroundRule& rule, const Tensor& from, const Tensor& to,
         Tensor& mapped) {
  check_histogram_map(values, from, to, mapped);
  dispatch_floating("histogram", values.dtype(),
                    [&](auto type) { run_map<decltype(type)>(values, rule, from, to, mapped); });
}

}  // namespace

extern const Histogram histogram;
const Histogram histogram{count, sort, map};

}  // namespace cinnabar::cpu
