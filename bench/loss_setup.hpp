#pragma once

#include "tests/tensors.hpp"

namespace cinnabar::bench {

/// What a loss between two images reads and writes.
struct LossSetup {
  Tensor a;
  Tensor b;
  Tensor sums;
  Tensor loss;
  Tensor grad;
  Tensor none;
  double bytes() const { return static_cast<double>(a.bytes()); }
};

/// Two cubes of n^3 voxels in [0, 1) with the sums a loss keeps for its gradient.
inline LossSetup loss_setup(std::int64_t n, const Tensor& sums) {
  const Device device = sums.device();
  LossSetup s;
  s.a = testing::random_tensor({1, 1, n, n, n}, 1, 0, 1).to(device);
  s.b = testing::random_tensor({1, 1, n, n, n}, 2, 0, 1).to(device);
  s.sums = sums;
  s.loss = Tensor::full({}, 1.0, DType::f32, device);
  s.grad = Tensor::empty_like(s.a);
  return s;
}

}  // namespace cinnabar::bench
