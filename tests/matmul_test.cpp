#include "autograd/matmul.hpp"

#include <gtest/gtest.h>

#include "autograd/gradcheck.hpp"
#include "autograd/reduce.hpp"
#include "kernels/matmul.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"
#include "tests/threads.hpp"

namespace cinnabar {
namespace {

using testing::poisoned;
using testing::random_tensor;
using testing::relative_error;

TEST(Matmul, HandSizedProducts) {
  const Variable a(Tensor::from<float>({1, 2, 3, 4, 5, 6}, {2, 3}));
  const Variable b(Tensor::from<float>({1, 0, 2, 1, 0, 3}, {3, 2}));
  EXPECT_EQ(matmul(a, b).value().to_vector<float>(), (std::vector<float>{5, 11, 14, 23}));
  EXPECT_EQ(matmul(b, a, true, true).value().to_vector<float>(), (std::vector<float>{5, 14, 11, 23}));
  const Variable v(Tensor::from<float>({1, 1, 2}, {3}));
  EXPECT_EQ(matmul(a, v).value().to_vector<float>(), (std::vector<float>{9, 21}));
  EXPECT_EQ(matmul(v, b).value().to_vector<float>(), (std::vector<float>{3, 7}));
  EXPECT_EQ(matmul(v, v).value().to_vector<float>(), (std::vector<float>{6}));
  EXPECT_EQ(matmul(v, v).shape(), Shape{});
  const Variable bias(Tensor::from<float>({10, 20}, {2}));
  EXPECT_EQ(linear(v, a, bias).value().to_vector<float>(), (std::vector<float>{19, 41}));
}

struct ShapeCase {
  Shape a, b;
  bool transpose_a, transpose_b;
  Shape result;
};

const std::vector<ShapeCase> kCases = {
    {{3, 4}, {4, 2}, false, false, {3, 2}},
    {{4, 3}, {4, 2}, true, false, {3, 2}},
    {{3, 4}, {2, 4}, false, true, {3, 2}},
    {{4, 3}, {2, 4}, true, true, {3, 2}},
    {{2, 3, 4}, {2, 4, 5}, false, false, {2, 3, 5}},
    {{2, 3, 4}, {4, 5}, false, false, {2, 3, 5}},
    {{2, 4, 3}, {5, 4}, true, true, {2, 3, 5}},
    {{3, 4}, {2, 4, 5}, false, false, {2, 3, 5}},
    {{2, 1, 3, 4}, {5, 4, 2}, false, false, {2, 5, 3, 2}},
    {{2, 1, 4, 3}, {3, 2, 4}, true, true, {2, 3, 3, 2}},
    {{4}, {4, 2}, false, false, {2}},
    {{3, 4}, {4}, false, false, {3}},
    {{2, 3, 4}, {4}, false, false, {2, 3}},
    {{4}, {2, 4, 3}, false, false, {2, 3}},
    {{4}, {4}, false, false, {}},
    {{3, 0}, {0, 2}, false, false, {3, 2}},
};

TEST(Matmul, GradientsOfBatchesTranspositionsAndVectors) {
  for (const ShapeCase& c : kCases) {
    const Tensor a = random_tensor(c.a, 1, -1, 1, DType::f64);
    const Tensor b = random_tensor(c.b, 2, -1, 1, DType::f64);
    EXPECT_EQ(matmul(Variable(a), Variable(b), c.transpose_a, c.transpose_b).shape(), c.result);
    const auto result = gradcheck(
        [&](const std::vector<Variable>& v) { return matmul(v[0], v[1], c.transpose_a, c.transpose_b); },
        {a, b});
    EXPECT_TRUE(result) << c.a << c.b << '\n' << result.message;
  }
}

TEST(Matmul, GradientsOfLinear) {
  for (const Shape& shape : {Shape{5, 4}, Shape{2, 3, 4}, Shape{4}}) {
    const auto result =
        gradcheck([](const std::vector<Variable>& v) { return linear(v[0], v[1], v[2]); },
                  {random_tensor(shape, 1, -1, 1, DType::f64), random_tensor({3, 4}, 2, -1, 1, DType::f64),
                   random_tensor({3}, 3, -1, 1, DType::f64)});
    EXPECT_TRUE(result) << shape << '\n' << result.message;
  }
}

TEST(Matmul, GradcheckRejectsAForgottenTransposition) {
  const auto wrong = [](const std::vector<Variable>& v) {
    const Tensor b = v[1].value();
    return record_one(
        "wrong_matmul", matmul(v[0].detach(), v[1].detach()).value(), {v[0]},
        [b](const Tensor& grad) { return std::vector<Tensor>{matmul(Variable(grad), Variable(b)).value()}; });
  };
  EXPECT_FALSE(gradcheck(
      wrong, {random_tensor({3, 3}, 1, -1, 1, DType::f64), random_tensor({3, 3}, 2, -1, 1, DType::f64)}));
}

TEST(Matmul, MisfitsAreRefused) {
  const Variable a(Tensor::zeros({2, 3}));
  EXPECT_THROW(matmul(a, a), Error);
  EXPECT_THROW(matmul(a, Variable(Tensor::zeros({3, 2}, DType::f64))), Error);
  EXPECT_THROW(matmul(a, Variable(Tensor::zeros({}))), Error);
  EXPECT_THROW(matmul(Variable(Tensor::zeros({3})), a, true), Error);
  EXPECT_THROW(matmul(Variable(Tensor::zeros({2, 2, 3})), Variable(Tensor::zeros({3, 3, 2}))), Error);
  EXPECT_THROW(linear(a, Variable(Tensor::zeros({4, 2}))), Error);
  EXPECT_THROW(linear(a, Variable(Tensor::zeros({4, 3})), Variable(Tensor::zeros({3}))), Error);
  Tensor small = Tensor::zeros({2, 2});
  EXPECT_THROW(cpu::matmul.forward(a.value(), false, a.value(), false, small), Error);
  EXPECT_THROW(cpu::matmul.forward(a.value(), true, a.value(), false, small), Error);
}

TEST(Matmul, TheBitsDoNotDependOnTheNumberOfThreads) {
  const Tensor a = random_tensor({700, 130}, 1);
  const Tensor b = random_tensor({130, 1100}, 2);
  const auto compute = [&] {
    Tensor product = Tensor::zeros({700, 1100});
    cpu::matmul.forward(a, false, b, false, product);
    return product;
  };
  EXPECT_TRUE(testing::same_values(testing::on_threads(1, compute), testing::on_threads(3, compute)));
}

class MatmulKernels : public testing::OnDevice {};
CINNABAR_ON_EACH_DEVICE(MatmulKernels);

TEST_P(MatmulKernels, AgreeWithPlainLoopsAcrossTiles) {
  for (const bool transpose_a : {false, true}) {
    for (const bool transpose_b : {false, true}) {
      const std::int64_t m = 261, n = 517, k = 9;
      const Tensor a = random_tensor(transpose_a ? Shape{k, m} : Shape{m, k}, 1);
      const Tensor b = random_tensor(transpose_b ? Shape{n, k} : Shape{k, n}, 2);
      const auto p = a.to_vector<double>();
      const auto q = b.to_vector<double>();
      std::vector<double> expected(static_cast<std::size_t>(m * n), 0.0);
      for (std::int64_t r = 0; r < m; ++r) {
        for (std::int64_t c = 0; c < n; ++c) {
          for (std::int64_t j = 0; j < k; ++j) {
            expected[static_cast<std::size_t>(r * n + c)] +=
                p[static_cast<std::size_t>(transpose_a ? j * m + r : r * k + j)] *
                q[static_cast<std::size_t>(transpose_b ? c * k + j : j * n + c)];
          }
        }
      }
      Tensor actual = poisoned({m, n}, DType::f32, device());
      matmul_on(device()).forward(a.to(device()), transpose_a, b.to(device()), transpose_b, actual);
      EXPECT_LT(relative_error(actual, Tensor::from(expected, {m, n})), 1e-6) << transpose_a << transpose_b;
    }
  }
}

TEST_P(MatmulKernels, BatchesAgreeWithFloat64) {
  for (const ShapeCase& c : kCases) {
    if (c.a.rank() < 2 || c.b.rank() < 2) continue;
    const Tensor a = random_tensor(c.a, 1);
    const Tensor b = random_tensor(c.b, 2);
    Tensor expected = poisoned(c.result, DType::f64);
    cpu::matmul.forward(a.to(DType::f64), c.transpose_a, b.to(DType::f64), c.transpose_b, expected);
    Tensor actual = poisoned(c.result, DType::f32, device());
    matmul_on(device()).forward(a.to(device()), c.transpose_a, b.to(device()), c.transpose_b, actual);
    EXPECT_LT(relative_error(actual, expected), 1e-6) << c.a << c.b;
  }
}

}  // namespace
}  // namespace cinnabar
