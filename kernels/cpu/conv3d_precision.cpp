#include "kernels/conv3d_precision.hpp"

#include "kernels/parallel.hpp"

namespace cinnabar::cpu {

namespace {

constexpr std::int64_t kGrain = 1 << 15;  // elements a task: 128 KiB

void round(const Tensor& from, Conv3dPrecision precision, Tensor& to) {
  check_round_operand(from, to);
  const float* const in = from.data<float>();
  float* const out = to.data<float>();
  dispatch_operand(precision, [&](auto element) {
    using Operand = decltype(element);
    parallel_for(from.numel(), kGrain, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) out[i] = static_cast<float>(static_cast<Operand>(in[i]));
    });
  });
}

}  // namespace

extern const RoundOperand round_operand;
const RoundOperand round_operand{round};

}  // namespace cinnabar::cpu
