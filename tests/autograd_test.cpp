#include <gtest/gtest.h>

#include "autograd/elementwise.hpp"
#include "autograd/gradcheck.hpp"
#include "engine/random.hpp"
#include "tests/devices.hpp"

namespace cinnabar {
namespace {

[[maybe_unused]] Tensor random_tensor(const Shape& shape, std::uint64_t seed, DType dtype = DType::f64) {
  std::vector<double> values(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = 2.0 * uniform_from_bits(philox_4x32_10(seed, 0, i).word[0]) - 1.0;
  }
  return Tensor::from(values, shape).to(dtype);
}

using Autograd = testing::OnDevice;
CINNABAR_ON_EACH_DEVICE(Autograd);

TEST_P(Autograd, AddsTheGradientsOfAVariableUsedTwiceAndOverCalls) {
  const Variable x(Tensor::from<float>({1, 2, 3}, {3}).to(device()), true);
  const Tensor ones = Tensor::full({3}, 1.0, DType::f32, device());
  (x * x + 2.0 * x).backward(ones);
  EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{4, 6, 8}));
  (x + x + x).backward(ones);
  EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{7, 9, 11}));
}

}  // namespace
}  // namespace cinnabar
