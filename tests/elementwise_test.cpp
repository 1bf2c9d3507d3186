#include "autograd/elementwise.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "autograd/gradcheck.hpp"
#include "autograd/reduce.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"

namespace cinnabar {
namespace {

using testing::poisoned;
using testing::poisoned_like;
using testing::random_tensor;
using testing::relative_error;

/// A pointwise function, a range where it is smooth, and its value by another formula.
struct UnaryCase {
  Unary op;
  const char* name;
  double a, b;
  double low, high;
  double (*expected)(double);
};

const std::vector<UnaryCase> kUnary = {
    {Unary::affine, "affine", 3.0, -0.5, -2, 2, [](double x) { return 3.0 * x - 0.5; }},
    {Unary::exp, "exp", 0, 0, -3, 3, [](double x) { return std::exp(x); }},
    {Unary::expm1, "expm1", 0, 0, -1, 1, [](double x) { return std::expm1(x); }},
    {Unary::log, "log", 0, 0, 0.2, 4, [](double x) { return std::log(x); }},
    {Unary::log1p, "log1p", 0, 0, -0.5, 2, [](double x) { return std::log1p(x); }},
    {Unary::sqrt, "sqrt", 0, 0, 0.2, 4, [](double x) { return std::sqrt(x); }},
    {Unary::rsqrt, "rsqrt", 0, 0, 0.2, 4, [](double x) { return 1.0 / std::sqrt(x); }},
    {Unary::reciprocal, "reciprocal", 0, 0, 0.2, 4, [](double x) { return 1.0 / x; }},
    {Unary::abs, "abs", 0, 0, 0.1, 2, [](double x) { return std::abs(x); }},
    {Unary::abs, "abs_negative", 0, 0, -2, -0.1, [](double x) { return std::abs(x); }},
    {Unary::square, "square", 0, 0, -2, 2, [](double x) { return x * x; }},
    {Unary::pow, "pow", 2.5, 0, 0.2, 2, [](double x) { return std::pow(x, 2.5); }},
    {Unary::sin, "sin", 0, 0, -3, 3, [](double x) { return std::sin(x); }},
    {Unary::cos, "cos", 0, 0, -3, 3, [](double x) { return std::cos(x); }},
    {Unary::tanh, "tanh", 0, 0, -3, 3, [](double x) { return std::tanh(x); }},
    {Unary::sigmoid, "sigmoid", 0, 0, -5, 5, [](double x) { return 0.5 * (1.0 + std::tanh(0.5 * x)); }},
    {Unary::softplus, "softplus", 0, 0, -5, 5, [](double x) { return std::log(1.0 + std::exp(x)); }},
    {Unary::relu, "relu", 0, 0, 0.1, 2, [](double x) { return x; }},
    {Unary::relu, "relu_negative", 0, 0, -2, -0.1, [](double) { return 0.0; }},
    {Unary::leaky_relu, "leaky_relu", 0.2, 0, 0.1, 2, [](double x) { return x; }},
    {Unary::leaky_relu, "leaky_relu_negative", 0.2, 0, -2, -0.1, [](double x) { return 0.2 * x; }},
    {Unary::elu, "elu", 0.7, 0, 0.1, 2, [](double x) { return x; }},
    {Unary::elu, "elu_negative", 0.7, 0, -2, -0.1, [](double x) { return 0.7 * (std::exp(x) - 1.0); }},
    {Unary::clamp, "clamp", -0.5, 0.5, -0.4, 0.4, [](double x) { return x; }},
    {Unary::clamp, "clamp_above", -0.5, 0.5, 0.6, 2, [](double) { return 0.5; }},
};

/// A function of two operands away from its kinks.
struct BinaryCase {
  Binary op;
  const char* name;
  double (*expected)(double, double);
};

const std::vector<BinaryCase> kBinary = {
    {Binary::add, "add", [](double x, double y) { return x + y; }},
    {Binary::sub, "sub", [](double x, double y) { return x - y; }},
    {Binary::mul, "mul", [](double x, double y) { return x * y; }},
    {Binary::div, "div", [](double x, double y) { return x / y; }},
    {Binary::pow, "pow", [](double x, double y) { return std::pow(x, y); }},
    {Binary::maximum, "maximum", [](double x, double y) { return std::max(x, y); }},
    {Binary::minimum, "minimum", [](double x, double y) { return std::min(x, y); }},
    {Binary::prelu, "prelu", [](double x, double y) { return x > 0 ? x : x * y; }},
    {Binary::greater, "greater", [](double x, double y) { return x > y ? 1.0 : 0.0; }},
    {Binary::greater_equal, "greater_equal", [](double x, double y) { return x >= y ? 1.0 : 0.0; }},
    {Binary::equal, "equal", [](double x, double y) { return x == y ? 1.0 : 0.0; }},
};

TEST(Elementwise, UnaryValuesAndGradients) {
  for (const UnaryCase& c : kUnary) {
    const Tensor x = random_tensor({7, 3}, 1, c.low, c.high, DType::f64);
    const std::vector<double> in = x.to_vector<double>();
    const std::vector<double> out = unary(c.op, Variable(x), c.a, c.b).value().to_vector<double>();
    for (std::size_t i = 0; i < in.size(); ++i) EXPECT_NEAR(out[i], c.expected(in[i]), 1e-14) << c.name;
    const auto result =
        gradcheck([&](const std::vector<Variable>& v) { return unary(c.op, v[0], c.a, c.b); }, {x});
    EXPECT_TRUE(result) << c.name << '\n' << result.message;
  }
}

TEST(Elementwise, BinaryValuesAndGradientsOverBroadcastAxes) {
  const std::vector<std::pair<Shape, Shape>> shapes = {{{4, 5}, {4, 5}},    {{2, 3, 4}, {3, 1}},
                                                       {{3, 1}, {2, 3, 4}}, {{2, 1, 3}, {4, 1}},
                                                       {{}, {3}},           {{1, 1}, {2, 3}}};
  for (const BinaryCase& c : kBinary) {
    for (const auto& [shape_x, shape_y] : shapes) {
      const Tensor x = random_tensor(shape_x, 1, 0.5, 1.5, DType::f64);
      const Tensor y = random_tensor(shape_y, 2, 0.5, 1.5, DType::f64);
      const Tensor z = binary(c.op, Variable(x), Variable(y)).value();
      EXPECT_NEAR(z.to_vector<double>()[0], c.expected(x.to_vector<double>()[0], y.to_vector<double>()[0]),
                  1e-14);
      const auto result =
          gradcheck([&](const std::vector<Variable>& v) { return binary(c.op, v[0], v[1]); }, {x, y});
      EXPECT_TRUE(result) << c.name << ' ' << shape_x << shape_y << '\n' << result.message;
    }
  }
}

TEST(Elementwise, BroadcastingRepeatsTheSmallerOperand) {
  const Variable rows(Tensor::from<float>({10, 20}, {2, 1}), true);
  const Variable columns(Tensor::from<float>({1, 2, 3}, {3}), true);
  const Variable z = rows - columns;
  EXPECT_EQ(z.value().to_vector<float>(), (std::vector<float>{9, 8, 7, 19, 18, 17}));
  sum(z * z).backward();
  EXPECT_EQ(rows.grad().to_vector<float>(), (std::vector<float>{48, 108}));
  EXPECT_EQ(columns.grad().to_vector<float>(), (std::vector<float>{-56, -52, -48}));
}

TEST(Elementwise, KinksFollowTheStatedRule) {
  const Variable x(Tensor::from<float>({-1, 0, 0.5f, 1, 2}, {5}), true);
  const auto slopes = [&](const Variable& y) {
    Variable leaf = x;
    leaf.clear_grad();
    sum(y).backward();
    return x.grad().to_vector<float>();
  };
  EXPECT_EQ(slopes(relu(x)), (std::vector<float>{0, 0, 1, 1, 1}));
  EXPECT_EQ(slopes(leaky_relu(x, 0.25)), (std::vector<float>{0.25, 0.25, 1, 1, 1}));
  EXPECT_EQ(slopes(abs(x)), (std::vector<float>{-1, 0, 1, 1, 1}));
  EXPECT_EQ(slopes(clamp(x, 0, 1)), (std::vector<float>{0, 1, 1, 1, 0}));
  EXPECT_EQ(slopes(pow(x, 0.0)), (std::vector<float>{0, 0, 0, 0, 0}));
  const Variable half(Tensor::full({}, 0.5));
  EXPECT_EQ(slopes(maximum(x, half)), (std::vector<float>{0, 0, 0.5, 1, 1}));
  EXPECT_EQ(slopes(minimum(x, half)), (std::vector<float>{1, 1, 0.5, 0, 0}));
  EXPECT_EQ(greater_equal(x, half).value().to_vector<int>(), (std::vector<int>{0, 0, 1, 1, 1}));
  EXPECT_FALSE(greater(x, half).requires_grad());
}

TEST(Elementwise, ExtremesStayFiniteAndNanIsKept) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const Variable x(Tensor::from<float>({-1000, 1000, nan, -inf}, {4}));
  EXPECT_EQ(softplus(x).value().to_vector<float>()[1], 1000.0f);
  EXPECT_EQ(sigmoid(x).value().to_vector<float>()[0], 0.0f);
  const auto rectified = relu(x).value().to_vector<float>();
  EXPECT_TRUE(std::isnan(rectified[2]));
  EXPECT_EQ(rectified[3], 0.0f);
  EXPECT_TRUE(std::isnan(maximum(x, Variable(Tensor::zeros({}))).value().to_vector<float>()[2]));
  EXPECT_TRUE(std::isnan(minimum(Variable(Tensor::zeros({})), x).value().to_vector<float>()[2]));
}

TEST(Elementwise, PreluHasOneWeightOrOnePerChannel) {
  const Tensor x = random_tensor({2, 3, 2, 2}, 3, -1, 1, DType::f64);
  for (const Shape& shape : {Shape{1}, Shape{}, Shape{3}}) {
    const auto result = gradcheck([](const std::vector<Variable>& v) { return prelu(v[0], v[1]); },
                                  {x, random_tensor(shape, 4, 0.1, 0.5, DType::f64)});
    EXPECT_TRUE(result) << shape << '\n' << result.message;
  }
  EXPECT_THROW(prelu(Variable(x), Variable(Tensor::zeros({2}, DType::f64))), Error);
  EXPECT_THROW(prelu(Variable(Tensor::zeros({3})), Variable(Tensor::zeros({3}))), Error);
}

TEST(Elementwise, WhereChoosesAndSplitsTheGradient) {
  const Tensor condition = Tensor::from<double>({1, 0, 0, 1, 1, 0}, {2, 3});
  const auto result =
      gradcheck([&](const std::vector<Variable>& v) { return where(condition, v[0], v[1]); },
                {random_tensor({3}, 5, -1, 1, DType::f64), random_tensor({2, 1}, 6, -1, 1, DType::f64)});
  EXPECT_TRUE(result) << result.message;
}

TEST(Elementwise, GradcheckRejectsAWrongSlope) {
  const auto wrong = [](const std::vector<Variable>& v) {
    const Tensor x = v[0].value();
    return record_one("wrong_sin", sin(v[0].detach()).value(), {v[0]}, [x](const Tensor& grad) {
      Tensor grad_x = Tensor::empty_like(x);
      cpu::elementwise.unary_backward(Unary::cos, grad, x, 0, 0, grad_x);
      return std::vector<Tensor>{grad_x};
    });
  };
  EXPECT_FALSE(gradcheck(wrong, {random_tensor({5}, 1, 0.1, 1, DType::f64)}));
}

TEST(Elementwise, MisfitsAreRefused) {
  const Variable x(Tensor::zeros({2, 3}));
  EXPECT_THROW(x + Variable(Tensor::zeros({2})), Error);
  EXPECT_THROW(x + Variable(Tensor::zeros({2, 3}, DType::f64)), Error);
  EXPECT_THROW(exp(Variable(Tensor::zeros({2}, DType::i32))), Error);
  EXPECT_THROW(clamp(x, 1, 0), Error);
  Tensor small = Tensor::zeros({3});
  EXPECT_THROW(cpu::elementwise.unary(Unary::exp, x.value(), 0, 0, small), Error);
  EXPECT_THROW(cpu::elementwise.binary(Binary::add, x.value(), x.value(), small), Error);
  EXPECT_THROW(cpu::elementwise.axpy(1.0, x.value(), small), Error);
}

/// Each kernel in float32 against the CPU in float64, into poisoned outputs, at sizes with remainders.
class ElementwiseKernels : public testing::OnDevice {
 protected:
  Tensor here(const Tensor& x) const { return x.to(DType::f32).to(device()); }
  const Elementwise& kernels() const { return elementwise_on(device()); }
};
CINNABAR_ON_EACH_DEVICE(ElementwiseKernels);

TEST_P(ElementwiseKernels, UnaryAgreesWithFloat64) {
  for (const UnaryCase& c : kUnary) {
    const Tensor x = random_tensor({1, 1027}, 1, c.low, c.high).to(DType::f64);
    const Tensor grad = random_tensor({1, 1027}, 2).to(DType::f64);
    Tensor expected = poisoned_like(x);
    cpu::elementwise.unary(c.op, x, c.a, c.b, expected);
    Tensor actual = poisoned(x.shape(), DType::f32, device());
    kernels().unary(c.op, here(x), c.a, c.b, actual);
    EXPECT_LT(relative_error(actual, expected), 1e-6) << c.name;

    const Tensor saved = slope_uses_output(c.op) ? expected : x;
    Tensor expected_grad = poisoned_like(x);
    cpu::elementwise.unary_backward(c.op, grad, saved, c.a, c.b, expected_grad);
    Tensor actual_grad = poisoned(x.shape(), DType::f32, device());
    kernels().unary_backward(c.op, here(grad), here(saved), c.a, c.b, actual_grad);
    EXPECT_LT(relative_error(actual_grad, expected_grad), 2e-6) << c.name;
  }
}

TEST_P(ElementwiseKernels, BinaryAgreesWithFloat64OnFlatAndBroadcastOperands) {
  const std::vector<std::pair<Shape, Shape>> shapes = {{{515}, {515}},
                                                       {{2, 3, 5, 7}, {3, 1, 1}},
                                                       {{3, 1, 1}, {2, 3, 5, 7}},
                                                       {{2, 3, 5, 7}, {2, 1, 5, 1}},
                                                       {{257}, {}},
                                                       {{2, 3, 5, 7}, {7}},
                                                       {{0, 3}, {3}}};
  for (const BinaryCase& c : kBinary) {
    for (const auto& [shape_x, shape_y] : shapes) {
      const Tensor x = random_tensor(shape_x, 1, 0.5, 1.5).to(DType::f64);
      const Tensor y = random_tensor(shape_y, 2, 0.5, 1.5).to(DType::f64);
      const Shape shape = binary(c.op, Variable(x), Variable(y)).shape();
      Tensor expected = poisoned(shape, DType::f64);
      cpu::elementwise.binary(c.op, x, y, expected);
      Tensor actual = poisoned(shape, DType::f32, device());
      kernels().binary(c.op, here(x), here(y), actual);
      EXPECT_LT(relative_error(actual, expected), 1e-6) << c.name << shape_x << shape_y;
      const Tensor grad = random_tensor(shape, 3).to(DType::f64);
      for (const int operand : {0, 1}) {
        cpu::elementwise.binary_backward(c.op, grad, x, y, operand, expected);
        actual.fill(std::numeric_limits<double>::quiet_NaN());
        kernels().binary_backward(c.op, here(grad), here(x), here(y), operand, actual);
        EXPECT_LT(relative_error(actual, expected), 2e-6) << c.name << shape_x << shape_y << operand;
      }
    }
  }
}

TEST_P(ElementwiseKernels, RowsThatStartOffAVectorBoundaryWork) {
  const Tensor x = random_tensor({3, 41}, 1);
  const Tensor row = here(x).rows(1, 1);
  Tensor actual = poisoned_like(row);
  kernels().unary(Unary::square, row, 0, 0, actual);
  Tensor expected = poisoned_like(x.rows(1, 1));
  cpu::elementwise.unary(Unary::square, x.rows(1, 1), 0, 0, expected);
  EXPECT_TRUE(testing::same_values(actual, expected));
}

TEST_P(ElementwiseKernels, AxpyAddsAndSelectAssigns) {
  const Tensor x = random_tensor({5, 67}, 1);
  Tensor target = here(Tensor::full(x.shape(), 10.0));
  kernels().axpy(-2.0, here(x), target);
  const auto in = x.to_vector<float>();
  const auto out = target.to_vector<float>();
  for (std::size_t i = 0; i < in.size(); ++i) EXPECT_FLOAT_EQ(out[i], 10.0f - 2.0f * in[i]);

  const Tensor condition = Tensor::from<float>({0, 1, 1, 0, 1}, {5, 1});
  Tensor chosen = poisoned(x.shape(), DType::f32, device());
  kernels().select(here(condition), here(x), here(Tensor::full({}, 7.0)), chosen);
  const auto values = chosen.to_vector<float>();
  EXPECT_EQ(values[0], 7.0f);
  EXPECT_EQ(values[67], in[67]);
}

TEST_P(ElementwiseKernels, InputsOfOtherDTypesAreRefused) {
  Tensor half = Tensor::zeros({4}, DType::f16, device());
  EXPECT_THROW(kernels().unary(Unary::exp, half, 0, 0, half), Error);
  if (device().is_cpu()) return;
  Tensor wide = Tensor::zeros({4}, DType::f64, device());
  EXPECT_THROW(kernels().unary(Unary::exp, wide, 0, 0, wide), Error);
  Tensor host = Tensor::zeros({4});
  EXPECT_THROW(kernels().unary(Unary::exp, Tensor::zeros({4}, DType::f32, device()), 0, 0, host), Error);
}

}  // namespace
}  // namespace cinnabar
