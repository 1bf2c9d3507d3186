#include "kernels/dropout.hpp"

#include "kernels/random_math.hpp"

namespace cinnabar {

void check_dropout_sequence(const char* op, const RandomSequence& sequence, double p) {
  check_random(op, sequence, p, 0.0);
  CINNABAR_CHECK(p >= 0.0 && p <= 1.0, op, "probability ", p, " is not in [0, 1]");
}

void check_dropout(const RandomSequence& sequence, double p, const Tensor& x, const Tensor& y) {
  constexpr const char* kOp = "dropout";
  check_dropout_sequence(kOp, sequence, p);
  require_floating(kOp, x);
  require_same_shape(kOp, x, y);
  require_dtype(kOp, y, x.dtype());
  require_same_device(kOp, x, y);
}

}  // namespace cinnabar
