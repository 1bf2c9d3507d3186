#include "kernels/histogram.hpp"

#include <cmath>

namespace cinnabar {

namespace {
constexpr const char* kOp = "histogram";
}

void check_histogram_count(const Tensor& values, double low, double high, const Tensor& counts) {
  require_floating(kOp, values);
  CINNABAR_CHECK(std::isfinite(low) && std::isfinite(high) && low < high, kOp, "range ", low, " to ", high,
                 " is empty");
  CINNABAR_CHECK(counts.rank() == 1 && counts.numel() >= 1 && counts.dtype() == DType::i64, kOp,
                 "counts must be i64 [bins], got ", counts);
  require_same_device(kOp, values, counts);
}

void check_histogram_map(const Tensor& values, const Tensor& from, const Tensor& to, const Tensor& mapped) {
  require_floating(kOp, values);
  require_same_shape(kOp, values, mapped);
  require_dtype(kOp, mapped, values.dtype());
  require_same_device(kOp, values, mapped);
  for (const Tensor* knots : {&from, &to}) {
    CINNABAR_CHECK(knots->rank() == 1 && knots->numel() >= 1 && knots->dtype() == DType::f64 &&
                       knots->device().is_cpu() && knots->numel() == from.numel(),
                   kOp, "knots must be f64 [knots] on the CPU, got ", *knots);
  }
  const double* knot = from.data<double>();
  for (std::int64_t k = 1; k < from.numel(); ++k) {
    CINNABAR_CHECK(knot[k - 1] <= knot[k], kOp, "knots must ascend, got ", knot[k - 1], " before ", knot[k]);
  }
}

}  // namespace cinnabar
