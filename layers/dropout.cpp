#include "layers/dropout.hpp"

#include "autograd/dropout.hpp"

namespace cinnabar {

DropoutLayer::DropoutLayer(double p, std::uint64_t seed, std::uint64_t stream)
    : p_(p), generator_(seed, stream) {
  CINNABAR_CHECK(p >= 0.0 && p <= 1.0, "dropout", "probability ", p, " is not in [0, 1]");
}

Variable DropoutLayer::forward(const Variable& x) {
  if ((!training() && !always_) || p_ == 0.0) return x;
  return dropout(x, p_, generator_.take(x.value().numel()));
}

}  // namespace cinnabar
