#include <gtest/gtest.h>

#include <cmath>

#include "autograd/epdiff.hpp"
#include "autograd/gradcheck.hpp"
#include "kernels/epdiff.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"

namespace cinnabar {
namespace {

using testing::poisoned;
using testing::random_tensor;
using testing::relative_error;

using Op2 = void (*)(const Tensor&, const Tensor&, Tensor&);
using Grad2 = void (*)(const Tensor&, const Tensor&, const Tensor&, Tensor&, Tensor&);

class EpdiffOnDevice : public testing::OnDevice {
 protected:
  Tensor sent(const Tensor& tensor) const { return tensor.to(device()); }
  const Epdiff& kernels() const { return epdiff_on(device()); }

  /// f32 on this device against f64 on the CPU, outputs poisoned.
  void compare_two(const char* name, Op2 Epdiff::*op, Grad2 Epdiff::*backward, const Shape& shape) {
    const Tensor a = random_tensor(shape, 1, -1.5, 1.5);
    const Tensor b = random_tensor(shape, 2);
    const Tensor g = random_tensor(shape, 3);
    const auto wide = [](const Tensor& t) { return t.to(DType::f64); };
    Tensor expected[3] = {poisoned(shape, DType::f64), poisoned(shape, DType::f64),
                          poisoned(shape, DType::f64)};
    Tensor actual[3];
    for (Tensor& t : actual) t = poisoned(shape, DType::f32, device());
    (cpu::epdiff.*op)(wide(a), wide(b), expected[0]);
    (cpu::epdiff.*backward)(wide(g), wide(a), wide(b), expected[1], expected[2]);
    (kernels().*op)(sent(a), sent(b), actual[0]);
    (kernels().*backward)(sent(g), sent(a), sent(b), actual[1], actual[2]);
    for (int i = 0; i < 3; ++i) {
      EXPECT_LT(relative_error(actual[i], expected[i]), 3e-6) << name << " output " << i << " " << shape;
    }
  }

  void compare_one(const char* name, void (*Epdiff::*op)(const Tensor&, Tensor&), const Shape& from,
                   std::int64_t channels) {
    const Tensor input = random_tensor(from, 4);
    Tensor expected = poisoned(from.with(1, channels), DType::f64);
    Tensor actual = poisoned(from.with(1, channels), DType::f32, device());
    (cpu::epdiff.*op)(input.to(DType::f64), expected);
    (kernels().*op)(sent(input), actual);
    EXPECT_LT(relative_error(actual, expected), 2e-6) << name << " " << from;
  }
};

TEST_P(EpdiffOnDevice, AgreesWithFloat64AtOddSizes) {
  for (const Shape& shape : {Shape{1, 3, 5, 7, 33}, Shape{2, 3, 3, 9, 31}, Shape{2, 3, 1, 11, 13},
                             Shape{1, 3, 2, 1, 5}, Shape{1, 3, 4, 5, 1}}) {
    compare_two("coad", &Epdiff::coad, &Epdiff::coad_backward, shape);
    compare_two("coad_inf", &Epdiff::coad_inf, &Epdiff::coad_inf_backward, shape);
    compare_two("jacobian_times_vector", &Epdiff::jacobian_times_vector,
                &Epdiff::jacobian_times_vector_backward, shape);
    compare_one("image_gradient", &Epdiff::image_gradient, shape.with(1, 1), 3);
    compare_one("image_gradient_backward", &Epdiff::image_gradient_backward, shape, 1);
    compare_one("jacobian", &Epdiff::jacobian, shape, 9);
    compare_one("jacobian_backward", &Epdiff::jacobian_backward, shape.with(1, 9), 3);
    compare_one("jacobian_determinant", &Epdiff::jacobian_determinant, shape, 1);
    const Tensor g = random_tensor(shape.with(1, 1), 5);
    const Tensor u = random_tensor(shape, 6);
    Tensor expected = poisoned(shape, DType::f64);
    Tensor actual = poisoned(shape, DType::f32, device());
    cpu::epdiff.jacobian_determinant_backward(g.to(DType::f64), u.to(DType::f64), expected);
    kernels().jacobian_determinant_backward(sent(g), sent(u), actual);
    EXPECT_LT(relative_error(actual, expected), 3e-6) << "jacobian_determinant_backward " << shape;
  }
}

TEST_P(EpdiffOnDevice, GradientOfARowIsHalvedAtItsEnds) {
  const Tensor image = sent(Tensor::from(std::vector<float>{1, 3, 9, 27}, {1, 1, 1, 1, 4}));
  Tensor gradient = poisoned({1, 3, 1, 1, 4}, DType::f32, device());
  kernels().image_gradient(image, gradient);
  EXPECT_EQ(gradient.to_vector<float>(), (std::vector<float>{1, 4, 12, 9, 0, 0, 0, 0, 0, 0, 0, 0}));
}

TEST_P(EpdiffOnDevice, IdentityHasHalfSlopeOnFacesAndUnitDeterminant) {
  const Tensor u = sent(Tensor::zeros({1, 3, 3, 4, 5}));
  Tensor jacobian = poisoned({1, 9, 3, 4, 5}, DType::f32, device());
  Tensor determinant = poisoned({1, 1, 3, 4, 5}, DType::f32, device());
  kernels().jacobian(u, jacobian);
  kernels().jacobian_determinant(u, determinant);
  const auto j = jacobian.to_vector<float>();
  const auto det = determinant.to_vector<float>();
  const std::size_t extent[3] = {5, 4, 3};
  for (std::size_t i = 0; i < 60; ++i) {
    const std::size_t index[3] = {i % 5, i / 5 % 4, i / 20};
    for (std::size_t k = 0; k < 9; ++k) {
      const std::size_t axis = k % 3;
      const bool face = index[axis] == 0 || index[axis] + 1 == extent[axis];
      EXPECT_EQ(j[k * 60 + i], k / 3 != axis ? 0.0f : face ? 0.5f : 1.0f);
    }
    EXPECT_EQ(det[i], 1.0f);
  }
}

TEST_P(EpdiffOnDevice, CoadOfTheIdentityDampsFaceMomentum) {
  const Tensor u = sent(Tensor::zeros({1, 3, 3, 3, 3}));
  const Tensor m = sent(Tensor::full({1, 3, 3, 3, 3}, 1.0));
  Tensor result = poisoned(u.shape(), DType::f32, device());
  kernels().coad(u, m, result);
  const auto v = result.to_vector<float>();
  EXPECT_EQ(v[13], 1.0f);          // centre
  EXPECT_EQ(v[12], 0.25f);         // x face: normal component, 1/2 of the determinant times 1/2
  EXPECT_EQ(v[27 + 12], 0.5f);     // tangential component
  EXPECT_EQ(v[0], 0.125f * 0.5f);  // corner
}

TEST_P(EpdiffOnDevice, CoadOfATwoDimensionalIdentityKeepsTheInterior) {
  const Tensor u = sent(Tensor::zeros({1, 3, 1, 5, 5}));
  const Tensor m = random_tensor(u.shape(), 8);
  Tensor result = poisoned(u.shape(), DType::f32, device());
  kernels().coad(u, sent(m), result);
  EXPECT_EQ(result.to_vector<float>()[12], m.to_vector<float>()[12]);
}

TEST_P(EpdiffOnDevice, RejectsShapesThatDoNotFit) {
  const Tensor field = sent(Tensor::zeros({1, 3, 3, 4, 5}));
  const Tensor image = sent(Tensor::zeros({1, 1, 3, 4, 5}));
  const Tensor other = sent(Tensor::zeros({1, 3, 3, 4, 6}));
  Tensor result = sent(Tensor::zeros({1, 3, 3, 4, 5}));
  Tensor wrong = sent(Tensor::zeros({1, 3, 3, 5, 5}));
  EXPECT_THROW(kernels().image_gradient(field, result), Error);
  EXPECT_THROW(kernels().image_gradient(image, wrong), Error);
  EXPECT_THROW(kernels().jacobian(field, result), Error);
  EXPECT_THROW(kernels().coad(field, other, result), Error);
  EXPECT_THROW(kernels().coad(image, field, result), Error);
  EXPECT_THROW(kernels().coad_inf(field, field, wrong), Error);
  EXPECT_THROW(kernels().jacobian_times_vector(field, sent(field.to(DType::f64)), result), Error);
}

CINNABAR_ON_EACH_DEVICE(EpdiffOnDevice);

using One = Variable (*)(const Variable&);
using Two = Variable (*)(const Variable&, const Variable&);

void expect_gradient(const char* name, Two fn, const Shape& shape) {
  const Tensor a = random_tensor(shape, 11, -0.7, 0.7, DType::f64);
  const Tensor b = random_tensor(shape, 12, -1, 1, DType::f64);
  const auto result = gradcheck([=](const std::vector<Variable>& in) { return fn(in[0], in[1]); }, {a, b});
  EXPECT_TRUE(result) << name << ": " << result.message;
}

void expect_gradient(const char* name, One fn, const Shape& shape) {
  const auto result = gradcheck([=](const std::vector<Variable>& in) { return fn(in[0]); },
                                {random_tensor(shape, 13, -1, 1, DType::f64)});
  EXPECT_TRUE(result) << name << ": " << result.message;
}

TEST(Epdiff, GradientsAgreeWithDifferences) {
  for (const Shape& field : {Shape{1, 3, 3, 4, 5}, Shape{2, 3, 1, 3, 4}, Shape{1, 3, 2, 2, 1}}) {
    expect_gradient("coad", coad, field);
    expect_gradient("coad_inf", coad_inf, field);
    expect_gradient("jacobian_times_vector", jacobian_times_vector, field);
    expect_gradient("jacobian", jacobian, field);
    expect_gradient("jacobian_determinant", jacobian_determinant, field);
    expect_gradient("image_gradient", image_gradient, field.with(1, 1));
  }
}

TEST(Epdiff, GradcheckRejectsACoadGradientWithoutTheDeterminant) {
  const Tensor u = random_tensor({1, 3, 3, 4, 5}, 14, -0.5, 0.5, DType::f64);
  const Tensor m = random_tensor({1, 3, 3, 4, 5}, 15, -1, 1, DType::f64);
  const auto wrong = [](const std::vector<Variable>& in) {
    const Tensor field = in[0].value();
    const Tensor momentum = in[1].value();
    Tensor result = Tensor::empty_like(field);
    cpu::epdiff.coad(field, momentum, result);
    return record_one("wrong_coad", result, in, [=](const Tensor& grad) {
      std::vector<Tensor> grads{Tensor::empty_like(field), Tensor::empty_like(field)};
      cpu::epdiff.jacobian_times_vector_backward(grad, field, momentum, grads[0], grads[1]);
      return grads;
    });
  };
  EXPECT_FALSE(gradcheck(std::function<Variable(const std::vector<Variable>&)>(wrong), {u, m}));
}

}  // namespace
}  // namespace cinnabar
