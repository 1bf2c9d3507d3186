// Rounds the operands of convolutions for the backends that multiply in fp32; tensor cores take theirs from
// conv3d_mma.cu, which rounds what it loads. Work split: a thread per element. No shared memory. Launch:
// blocks of 256. Limiting resource: memory bandwidth, 8 bytes an element.

#include "kernels/conv3d_precision.hpp"

#include "kernels/cuda/launch.cuh"

namespace cinnabar::cuda {
namespace {

constexpr const char* kOp = "round_operand";

// budget: <=32 registers, 0 B shared, 256 threads, occupancy >= 1.0
template <class Operand>
__global__ void conv3d_round_element_kernel(const float* from, std::int64_t count, float* to) {
  const std::int64_t index = thread_index();
  if (index < count) to[index] = static_cast<float>(static_cast<Operand>(from[index]));
}

void round(const Tensor& from, Conv3dPrecision precision, Tensor& to) {
  check_round_operand(from, to);
  if (from.numel() == 0) return;
  dispatch_operand(precision, [&](auto element) {
    launch(kOp, conv3d_round_element_kernel<decltype(element)>, cover(from.numel()), from.device(),
           from.data<float>(), from.numel(), to.data<float>());
  });
}

}  // namespace

extern const RoundOperand round_operand;
const RoundOperand round_operand{round};

}  // namespace cinnabar::cuda
