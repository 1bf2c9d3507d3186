#include "models/sample_moments.hpp"

#include "kernels/parallel.hpp"

namespace cinnabar {

namespace {

constexpr const char* kOp = "sample_moments";
constexpr std::int64_t kGrain = 1 << 16;

}  // namespace

void MomentAccumulator::add(const Tensor& sample) {
  CINNABAR_CHECK(sample.defined(), kOp, "needs a sample");
  require_floating(kOp, sample);
  if (count_ == 0) {
    dtype_ = sample.dtype();
    mean_ = Tensor::zeros(sample.shape(), DType::f64);
    squares_ = Tensor::zeros(sample.shape(), DType::f64);
  }
  require_same_shape(kOp, sample, mean_);
  const Tensor host = sample.to(Device::cpu());
  const double share = 1.0 / static_cast<double>(++count_);
  double* mean = mean_.data<double>();
  double* squares = squares_.data<double>();
  dispatch_floating(kOp, host.dtype(), [&]<class T>(T) {
    const T* value = host.data<T>();
    parallel_for(host.numel(), kGrain, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        const double x = static_cast<double>(value[i]), before = x - mean[i];
        mean[i] += before * share;
        squares[i] += before * (x - mean[i]);
      }
    });
  });
}

SampleMoments MomentAccumulator::moments() const {
  CINNABAR_CHECK(count_ > 0, kOp, "no sample was added");
  Tensor variance = squares_.clone();
  const double share = count_ > 1 ? 1.0 / static_cast<double>(count_ - 1) : 0.0;
  double* value = variance.data<double>();
  parallel_for(variance.numel(), kGrain, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) value[i] *= share;
  });
  return {mean_.to(dtype_), variance.to(dtype_)};
}

}  // namespace cinnabar
