#include <gtest/gtest.h>

#include <cmath>

#include "autograd/gradcheck.hpp"
#include "autograd/update_inverse.hpp"
#include "kernels/update_inverse.hpp"
#include "kernels/warp.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"
#include "tests/threads.hpp"

namespace cinnabar {
namespace {

using testing::poisoned;
using testing::random_tensor;
using testing::relative_error;
using testing::same_values;

/// A displacement of low frequency: amplitude times sines whose phases the seed shifts.
Tensor wavy_field(const Shape& shape, double seed, double amplitude, DType dtype = DType::f32) {
  std::vector<double> values;
  const std::int64_t d = shape[2], h = shape[3], w = shape[4];
  for (std::int64_t i = 0; i < shape.numel(); ++i) {
    const double x = static_cast<double>(i % w), y = static_cast<double>(i / w % h);
    const double z = static_cast<double>(i / w / h % d), c = static_cast<double>(i / w / h / d);
    values.push_back(amplitude * std::sin(0.31 * x + 0.7 * c + seed) * std::cos(0.23 * y - 1.1 * c) *
                     std::cos(0.27 * z + 0.4 * c * seed));
  }
  return Tensor::from(values, shape).to(dtype);
}

/// The N iterations as separate passes over whole fields, without any stop.
Tensor full_loop(const Tensor& psi, const Tensor& increment, int iterations) {
  const Warp& warp = warp_on(psi.device());
  Tensor rho = psi.clone();
  Tensor w = Tensor::empty_like(psi);
  for (int k = 0; k < iterations; ++k) {
    warp.forward(increment, rho, Boundary::zeros, w);
    std::vector<double> back = w.to_vector<double>();
    for (double& value : back) value = -value;
    const Tensor moved = Tensor::from(back, psi.shape()).to(psi.dtype()).to(psi.device());
    warp.compose(psi, moved, rho);
  }
  return rho;
}

class UpdateInverseOnDevice : public testing::OnDevice {
 protected:
  Tensor sent(const Tensor& tensor) const { return tensor.to(device()); }
  const UpdateInverse& kernels() const { return update_inverse_on(device()); }
};

TEST_P(UpdateInverseOnDevice, AgreesWithTheFullLoop) {
  for (const Shape& shape : {Shape{1, 3, 9, 11, 37}, Shape{2, 3, 5, 7, 6}, Shape{1, 3, 1, 15, 33}}) {
    const Tensor psi = sent(wavy_field(shape, 0.3, 2.5));
    const Tensor increment = sent(wavy_field(shape, 1.7, 0.6));
    for (const int iterations : {0, 1, 5, 20, 21}) {
      Tensor updated = poisoned(shape, DType::f32, device());
      kernels().forward(psi, increment, iterations, updated);
      const Tensor expected = full_loop(psi, increment, iterations);
      // On the CPU both paths share every operation; a GPU compiler may fuse them differently.
      if (device().is_cpu()) {
        EXPECT_TRUE(same_values(updated, expected)) << shape << ", " << iterations << " iterations";
      } else {
        EXPECT_LT(relative_error(updated, expected), 1e-5) << shape << ", " << iterations << " iterations";
      }
    }
  }
}

TEST_P(UpdateInverseOnDevice, UndoesAShiftByHand) {
  // h = id + 1 along x with inverse id - 1; one more half voxel: the inverse becomes id - 1.5.
  const Shape shape{1, 3, 1, 1, 9};
  std::vector<float> psi(27, 0.0f), increment(27, 0.0f);
  for (std::size_t x = 0; x < 9; ++x) {
    psi[x] = -1.0f;
    increment[x] = 0.5f;
  }
  Tensor updated = poisoned(shape, DType::f32, device());
  kernels().forward(sent(Tensor::from(psi, shape)), sent(Tensor::from(increment, shape)), 20, updated);
  const auto values = updated.to_vector<float>();
  for (std::size_t x = 2; x < 9; ++x) EXPECT_EQ(values[x], -1.5f) << x;
}

TEST_P(UpdateInverseOnDevice, GradientsAgreeWithFloat64) {
  for (const Shape& shape : {Shape{1, 3, 7, 9, 35}, Shape{2, 3, 1, 13, 11}}) {
    const Tensor psi = wavy_field(shape, 0.9, 1.5);
    const Tensor increment = wavy_field(shape, 2.1, 0.5);
    const Tensor grad = random_tensor(shape, 3);
    Tensor updated = poisoned(shape);
    cpu::update_inverse.forward(psi, increment, 20, updated);
    const auto wide = [](const Tensor& t) { return t.to(DType::f64); };
    Tensor expected[2] = {poisoned(shape, DType::f64), poisoned(shape, DType::f64)};
    Tensor actual[2] = {poisoned(shape, DType::f32, device()), poisoned(shape, DType::f32, device())};
    cpu::update_inverse.backward(wide(grad), wide(psi), wide(increment), wide(updated), expected[0],
                                 expected[1]);
    kernels().backward(sent(grad), sent(psi), sent(increment), sent(updated), actual[0], actual[1]);
    // Positions within rounding of a voxel plane may take their slope from the cell on either side.
    for (int i = 0; i < 2; ++i) EXPECT_LT(relative_error(actual[i], expected[i]), 2e-4) << shape << " " << i;
  }
}

TEST_P(UpdateInverseOnDevice, NanInTheGradientIsNotLost) {
  const Shape shape{1, 3, 3, 3, 3};
  const Tensor psi = sent(wavy_field(shape, 0.9, 0.5));
  Tensor grad = Tensor::zeros(shape);
  grad.data<float>()[13] = std::nanf("");
  Tensor grad_psi = Tensor::zeros(shape, DType::f32, device());
  Tensor grad_increment = Tensor::zeros(shape, DType::f32, device());
  kernels().backward(sent(grad), psi, psi, psi, grad_psi, grad_increment);
  const auto has_nan = [](const Tensor& t) {
    const auto values = t.to_vector<float>();
    return std::any_of(values.begin(), values.end(), [](float v) { return std::isnan(v); });
  };
  EXPECT_TRUE(has_nan(grad_psi));
  EXPECT_TRUE(has_nan(grad_increment));
}

TEST_P(UpdateInverseOnDevice, RejectsWhatDoesNotFit) {
  const Tensor field = sent(Tensor::zeros({1, 3, 3, 4, 5}));
  const Tensor other = sent(Tensor::zeros({1, 3, 3, 4, 4}));
  Tensor result = sent(Tensor::zeros({1, 3, 3, 4, 5}));
  Tensor image = sent(Tensor::zeros({1, 1, 3, 4, 5}));
  EXPECT_THROW(kernels().forward(field, other, 5, result), Error);
  EXPECT_THROW(kernels().forward(field, field, 5, image), Error);
  EXPECT_THROW(kernels().forward(field, field, -1, result), Error);
  EXPECT_THROW(kernels().forward(field, field, 65, result), Error);
  EXPECT_THROW(kernels().backward(other, field, field, field, result, result), Error);
}

CINNABAR_ON_EACH_DEVICE(UpdateInverseOnDevice);

TEST(UpdateInverse, GradientAgreesWithDifferencesWhereTheInverseHasConverged) {
  for (const Shape& shape : {Shape{1, 3, 3, 4, 4}, Shape{2, 3, 1, 3, 4}}) {
    const Tensor psi = random_tensor(shape, 5, -0.8, 0.8, DType::f64);
    const Tensor increment = random_tensor(shape, 6, -0.2, 0.2, DType::f64);
    const auto result = gradcheck(
        [](const std::vector<Variable>& in) { return update_inverse(in[0], in[1], 60); }, {psi, increment});
    EXPECT_TRUE(result) << result.message;
  }
}

TEST(UpdateInverse, GradcheckRejectsTheGradientAtAnUnconvergedInverse) {
  const Shape shape{1, 3, 3, 3, 4};
  EXPECT_FALSE(gradcheck(
      [](const std::vector<Variable>& in) { return update_inverse(in[0], in[1], 1); },
      {random_tensor(shape, 7, -0.8, 0.8, DType::f64), random_tensor(shape, 8, -0.3, 0.3, DType::f64)}));
}

TEST(UpdateInverse, HasTheSameBitsForAnyNumberOfThreads) {
  const Shape shape{1, 3, 17, 19, 23};
  const Tensor psi = wavy_field(shape, 0.3, 2.0);
  const Tensor increment = wavy_field(shape, 1.1, 0.7);
  const Tensor grad = random_tensor(shape, 9);
  const auto compute = [&] {
    std::vector<Tensor> results{poisoned(shape), poisoned(shape), poisoned(shape)};
    cpu::update_inverse.forward(psi, increment, 20, results[0]);
    cpu::update_inverse.backward(grad, psi, increment, results[0], results[1], results[2]);
    return results;
  };
  const auto one = testing::on_threads(1, compute);
  const auto three = testing::on_threads(3, compute);
  for (std::size_t k = 0; k < 3; ++k) EXPECT_TRUE(same_values(one[k], three[k])) << k;
}

}  // namespace
}  // namespace cinnabar
