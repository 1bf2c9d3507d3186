#include "layers/dropout.hpp"

#include "autograd/dropout.hpp"

namespace cinnabar {

DropoutLayer::DropoutLayer(double p, std::uint64_t seed, std::uint64_t stream)
    : p_(p), generator_(seed, stream) {
  CINNABAR_CHECK(p >= 0.0 && p <= 1.0, "dropout", "probability ", p, " is not in [0, 1]");
  add_generator("sequence", generator_);
}

Variable DropoutLayer::forward(const Variable& x) {
  if (!drops()) return x;
  return dropout(x, p_, generator_.take(x.value().numel()));
}

bool DropoutLayer::join(EpilogueInputs& epilogue, std::int64_t elements) {
  if (!drops()) return true;
  if (epilogue.dropout > 0.0) return false;
  epilogue.dropout = p_;
  epilogue.sequence = generator_.take(elements);
  return true;
}

}  // namespace cinnabar
