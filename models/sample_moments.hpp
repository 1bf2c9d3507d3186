#pragma once

#include "engine/tensor.hpp"

namespace cinnabar {

/// Mean and variance of samples, element by element.
struct SampleMoments {
  Tensor mean;
  Tensor variance;  ///< divided by count - 1; zeros for one sample
};

/// Collects moments sample by sample (Welford, "Note on a method for calculating corrected sums of squares
/// and products", Technometrics 1962), in f64 on the CPU: any number of samples takes the memory of four.
class MomentAccumulator {
 public:
  /// A tensor of f32 or f64 on any device; all samples have one shape.
  void add(const Tensor& sample);
  std::int64_t count() const { return count_; }
  /// In the first sample's dtype, on the CPU. Throws Error without a sample.
  SampleMoments moments() const;

 private:
  std::int64_t count_ = 0;
  DType dtype_ = DType::f32;
  Tensor mean_, squares_;  ///< f64; squares_ is the sum of squared deviations from the mean
};

}  // namespace cinnabar
