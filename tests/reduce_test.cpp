#include "autograd/reduce.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "autograd/gradcheck.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/reduce.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"
#include "tests/threads.hpp"

namespace cinnabar {
namespace {

using testing::poisoned;
using testing::random_tensor;
using testing::relative_error;
using testing::same_values;

Variable number(const std::vector<double>& values, const Shape& shape, bool requires_grad = true) {
  return Variable(Tensor::from(values, shape), requires_grad);
}

std::vector<double> values_of(const Variable& x) {
  return x.value().to_vector<double>();
}

using ReduceFunction = std::function<Variable(const Variable&, const Axes&, bool)>;
const std::vector<std::pair<const char*, ReduceFunction>> kFunctions = {
    {"sum", [](const Variable& x, const Axes& a, bool k) { return sum(x, a, k); }},
    {"mean", [](const Variable& x, const Axes& a, bool k) { return mean(x, a, k); }},
    {"prod", [](const Variable& x, const Axes& a, bool k) { return prod(x, a, k); }},
    {"amax", [](const Variable& x, const Axes& a, bool k) { return amax(x, a, k); }},
    {"amin", [](const Variable& x, const Axes& a, bool k) { return amin(x, a, k); }},
    {"var", [](const Variable& x, const Axes& a, bool k) { return var(x, a, true, k); }},
    {"var_biased", [](const Variable& x, const Axes& a, bool k) { return var(x, a, false, k); }},
    {"stddev", [](const Variable& x, const Axes& a, bool k) { return stddev(x, a, true, k); }},
    {"norm1", [](const Variable& x, const Axes& a, bool k) { return norm(x, 1, a, k); }},
    {"norm2", [](const Variable& x, const Axes& a, bool k) { return norm(x, 2, a, k); }},
    {"logsumexp", [](const Variable& x, const Axes& a, bool k) { return logsumexp(x, a, k); }},
    {"softmax", [](const Variable& x, const Axes& a, bool) { return softmax(x, a); }},
    {"log_softmax", [](const Variable& x, const Axes& a, bool) { return log_softmax(x, a); }},
};

TEST(Reduce, HandSizedValues) {
  const Variable x = number({1, 2, 3, 4, 5, 9}, {2, 3});
  EXPECT_EQ(values_of(sum(x)), (std::vector<double>{24}));
  EXPECT_EQ(sum(x).shape(), Shape{});
  EXPECT_EQ(values_of(sum(x, {0})), (std::vector<double>{5, 7, 12}));
  EXPECT_EQ(values_of(mean(x, {-1}, true)), (std::vector<double>{2, 6}));
  EXPECT_EQ(mean(x, {-1}, true).shape(), (Shape{2, 1}));
  EXPECT_EQ(values_of(prod(x, {1})), (std::vector<double>{6, 180}));
  EXPECT_EQ(values_of(amax(x, {0})), (std::vector<double>{4, 5, 9}));
  EXPECT_EQ(values_of(amin(x)), (std::vector<double>{1}));
  EXPECT_EQ(values_of(var(x, {1})), (std::vector<double>{1, 7}));
  EXPECT_DOUBLE_EQ(values_of(var(x, {1}, false))[1], 14.0 / 3.0);
  EXPECT_DOUBLE_EQ(values_of(stddev(x, {1}))[1], std::sqrt(7.0));
  EXPECT_EQ(values_of(norm(number({3, -4}, {2}), 2)), (std::vector<double>{5}));
  EXPECT_EQ(values_of(norm(number({3, -4}, {2}), 1)), (std::vector<double>{7}));
  EXPECT_DOUBLE_EQ(values_of(logsumexp(number({1, 1}, {2})))[0], 1.0 + std::log(2.0));
  EXPECT_EQ(values_of(cumsum(x, 1)), (std::vector<double>{1, 3, 6, 4, 9, 18}));
  EXPECT_EQ(values_of(cumsum(x, 0)), (std::vector<double>{1, 2, 3, 5, 7, 12}));
  EXPECT_EQ(values_of(dot(x, x)), (std::vector<double>{136}));
}

TEST(Reduce, GradientsOverEverySetOfAxes) {
  const Tensor x = random_tensor({3, 2, 4}, 1, 0.3, 1.3, DType::f64);
  for (const auto& [name, function] : kFunctions) {
    for (const Axes& axes : std::vector<Axes>{{}, {0}, {1}, {2}, {0, 2}, {-1, 1}, {0, 1, 2}}) {
      for (const bool keepdim : {false, true}) {
        const auto result =
            gradcheck([&](const std::vector<Variable>& v) { return function(v[0], axes, keepdim); }, {x});
        EXPECT_TRUE(result) << name << ' ' << axes.size() << " axes\n" << result.message;
      }
    }
  }
}

TEST(Reduce, GradientsOfCumsumAndDot) {
  const Tensor x = random_tensor({3, 4, 2}, 1, -1, 1, DType::f64);
  for (const int axis : {0, 1, 2}) {
    const auto result = gradcheck([axis](const std::vector<Variable>& v) { return cumsum(v[0], axis); }, {x});
    EXPECT_TRUE(result) << result.message;
  }
  const auto result = gradcheck([](const std::vector<Variable>& v) { return dot(v[0], v[1]); },
                                {x, random_tensor({3, 4, 2}, 2, -1, 1, DType::f64)});
  EXPECT_TRUE(result) << result.message;
}

TEST(Reduce, EqualExtremesShareTheGradient) {
  const Variable x = number({2, 5, 5, 1, 1, 1}, {2, 3});
  sum(amax(x, {1})).backward();
  const double third = 1.0 / 3.0;
  EXPECT_EQ(x.grad().to_vector<double>(), (std::vector<double>{0, 0.5, 0.5, third, third, third}));
}

TEST(Reduce, ProductWithZerosHasTheExactGradient) {
  const Variable none = number({2, 3, 4}, {3});
  const Variable one = number({2, 0, 4}, {3});
  const Variable two = number({0, 0, 4}, {3});
  for (const Variable& x : {none, one, two}) prod(x).backward();
  EXPECT_EQ(none.grad().to_vector<double>(), (std::vector<double>{12, 8, 6}));
  EXPECT_EQ(one.grad().to_vector<double>(), (std::vector<double>{0, 8, 0}));
  EXPECT_EQ(two.grad().to_vector<double>(), (std::vector<double>{0, 0, 0}));
}

TEST(Reduce, FlatPointsOfNormAndStddevHaveGradientZero) {
  const Variable zero = number({0, 0}, {2});
  norm(zero, 2).backward();
  EXPECT_EQ(zero.grad().to_vector<double>(), (std::vector<double>{0, 0}));
  const Variable same = number({3, 3}, {2});
  stddev(same).backward();
  EXPECT_EQ(same.grad().to_vector<double>(), (std::vector<double>{0, 0}));
}

TEST(Reduce, SoftmaxAndLogsumexpStandLargeAndInfiniteInputs) {
  const double inf = std::numeric_limits<double>::infinity();
  const Variable x = number({1000, 1001, -inf, -inf, -inf, -inf}, {2, 3});
  const auto soft = values_of(softmax(x, {1}));
  EXPECT_NEAR(soft[1], 1.0 / (1.0 + std::exp(-1.0)), 1e-15);
  EXPECT_EQ(soft[2], 0.0);
  const auto logs = values_of(logsumexp(x, {1}));
  EXPECT_NEAR(logs[0], 1001.0 + std::log1p(std::exp(-1.0)), 1e-12);
  EXPECT_EQ(logs[1], -inf);
}

TEST(Reduce, EmptyAndMisfitInputs) {
  const Variable empty = number({}, {0, 3});
  EXPECT_EQ(values_of(sum(empty, {0})), (std::vector<double>{0, 0, 0}));
  EXPECT_EQ(values_of(prod(empty, {0})), (std::vector<double>{1, 1, 1}));
  EXPECT_THROW(amax(empty), Error);
  EXPECT_THROW(mean(empty), Error);
  EXPECT_THROW(var(number({1}, {1})), Error);
  const Variable x = number({1, 2, 3}, {3});
  EXPECT_THROW(sum(x, {1}), Error);
  EXPECT_THROW(sum(x, {0, -1}), Error);
  EXPECT_THROW(norm(x, 3), Error);
  EXPECT_THROW(dot(x, number({1, 2}, {2})), Error);
  Tensor wrong = Tensor::zeros({2}, DType::f64);
  EXPECT_THROW(cpu::reduce.forward(Reduction::sum, x.value(), {}, 1.0, wrong), Error);
  Tensor one = Tensor::zeros({1}, DType::f64);
  EXPECT_THROW(cpu::reduce.forward(Reduction::sum_exp, x.value(), {}, 1.0, one), Error);
  EXPECT_THROW(cpu::reduce.backward(Reduction::count_equal, one, x.value(), one, one), Error);
}

TEST(Reduce, GradcheckRejectsAMeanWhoseGradientForgetsTheCount) {
  const auto wrong = [](const std::vector<Variable>& v) {
    return record_one("wrong_mean", mean(v[0].detach()).value(), {v[0]},
                      [shape = v[0].shape()](const Tensor& grad) {
                        return std::vector<Tensor>{Tensor::full(shape, grad.item(), DType::f64)};
                      });
  };
  EXPECT_FALSE(gradcheck(wrong, {random_tensor({5}, 1, -1, 1, DType::f64)}));
}

TEST(Reduce, TheBitsDoNotDependOnTheNumberOfThreads) {
  const Tensor x = random_tensor({7, 300000}, 1);
  const Tensor tall = x.reshape({300000, 7});
  const auto compute = [&] {
    std::vector<Tensor> results;
    for (const Reduction op : {Reduction::sum, Reduction::sum_squares}) {
      for (const auto& [input, shape] : {std::pair{x, Shape{1, 1}}, std::pair{x, Shape{7, 1}},
                                         std::pair{tall, Shape{1, 7}}, std::pair{x, Shape{1, 300000}}}) {
        results.push_back(Tensor::zeros(shape));
        cpu::reduce.forward(op, input, {}, 1.0, results.back());
      }
    }
    return results;
  };
  const auto one = testing::on_threads(1, compute);
  const auto three = testing::on_threads(3, compute);
  for (std::size_t i = 0; i < 8; ++i) EXPECT_TRUE(same_values(one[i], three[i])) << i;
}

class ReduceKernels : public testing::OnDevice {
 protected:
  Tensor here(const Tensor& x) const { return x.to(DType::f32).to(device()); }
  const Reduce& kernels() const { return reduce_on(device()); }
};
CINNABAR_ON_EACH_DEVICE(ReduceKernels);

const std::vector<Reduction> kReductions = {
    Reduction::sum,     Reduction::prod,        Reduction::nonzero_prod, Reduction::maximum,
    Reduction::minimum, Reduction::sum_abs,     Reduction::sum_squares,  Reduction::sum_squared_deviation,
    Reduction::sum_exp, Reduction::count_equal, Reduction::sum_products};

/// Plain nested loops in float64.
Tensor expected_reduction(Reduction op, const Tensor& x, const Tensor& reference, const Shape& output) {
  const std::vector<double> in = x.to_vector<double>();
  const std::vector<double> r = reference.to_vector<double>();
  const bool product = op == Reduction::prod || op == Reduction::nonzero_prod;
  const double inf = std::numeric_limits<double>::infinity();
  const double start = op == Reduction::maximum ? -inf : op == Reduction::minimum ? inf : product ? 1.0 : 0.0;
  std::vector<double> result(static_cast<std::size_t>(output.numel()), start);
  for (std::size_t i = 0; i < in.size(); ++i) {
    std::int64_t rest = static_cast<std::int64_t>(i);
    std::int64_t k = 0;
    std::int64_t step = 1;
    for (int axis = x.rank() - 1; axis >= 0; --axis) {
      if (output[axis] != 1) k += rest % x.shape(axis) * step;
      step *= output[axis];
      rest /= x.shape(axis);
    }
    double& total = result[static_cast<std::size_t>(k)];
    const double ref = r[op == Reduction::sum_products ? i : static_cast<std::size_t>(k)];
    if (op == Reduction::maximum) total = std::max(total, in[i]);
    if (op == Reduction::minimum) total = std::min(total, in[i]);
    if (product) total *= op == Reduction::nonzero_prod && in[i] == 0.0 ? 1.0 : in[i];
    if (op == Reduction::sum) total += in[i];
    if (op == Reduction::sum_abs) total += std::abs(in[i]);
    if (op == Reduction::sum_squares) total += in[i] * in[i];
    if (op == Reduction::sum_squared_deviation) total += (in[i] - ref) * (in[i] - ref);
    if (op == Reduction::sum_exp) total += std::exp(in[i] - ref);
    if (op == Reduction::count_equal) total += in[i] == ref ? 1.0 : 0.0;
    if (op == Reduction::sum_products) total += in[i] * ref;
  }
  return Tensor::from(result, output);
}

TEST_P(ReduceKernels, ForwardAgreesWithPlainLoops) {
  // Whole blocks and rows of threads, remainders, several chunks, and alternating axes.
  const std::vector<std::pair<Shape, Shape>> shapes = {{{3, 5, 7, 9}, {1, 1, 1, 1}},
                                                       {{3, 5, 7, 9}, {3, 1, 7, 1}},
                                                       {{3, 5, 7, 9}, {1, 5, 1, 9}},
                                                       {{3, 5, 7, 9}, {1, 5, 1, 1}},
                                                       {{9001}, {1}},
                                                       {{41, 37}, {1, 37}},
                                                       {{1000, 33}, {1, 33}},
                                                       {{3, 700}, {3, 1}},
                                                       {{70, 3}, {1, 3}},
                                                       {{4, 4}, {4, 4}},
                                                       {{2, 3, 1}, {2, 1, 1}}};
  for (const Reduction op : kReductions) {
    for (const auto& [shape, output] : shapes) {
      const Tensor x = random_tensor(shape, 1, 0.8, 1.2);
      const Tensor reference =
          op == Reduction::sum_products ? random_tensor(shape, 2) : random_tensor(output, 2, 0.5, 1.0);
      const Tensor expected = expected_reduction(op, x, reference, output);
      Tensor actual = poisoned(output, DType::f32, device());
      kernels().forward(op, here(x), here(reference), 1.0, actual);
      // A product of n factors rounds n times; sums are compensated.
      const bool product = op == Reduction::prod || op == Reduction::nonzero_prod;
      const double tolerance = product ? 6e-8 * static_cast<double>(x.numel()) : 1e-6;
      EXPECT_LE(relative_error(actual, expected), tolerance)
          << "reduction " << static_cast<int>(op) << ' ' << shape << " to " << output;
    }
  }
}

TEST_P(ReduceKernels, SumsOfManyElementsKeepTheirDigits) {
  const Tensor x = random_tensor({200001}, 1, 1000.0, 1001.0);
  double exact = 0.0;
  for (const double value : x.to_vector<double>()) exact += value;
  Tensor actual = poisoned({1}, DType::f32, device());
  kernels().forward(Reduction::sum, here(x), {}, 1.0 / 200001, actual);
  EXPECT_NEAR(actual.item(), exact / 200001, 1e-4);
}

TEST_P(ReduceKernels, BackwardAgreesWithFloat64) {
  for (const Reduction op : {Reduction::sum, Reduction::prod, Reduction::maximum, Reduction::sum_abs,
                             Reduction::sum_squares, Reduction::sum_squared_deviation, Reduction::sum_exp}) {
    for (const Shape& kept :
         {Shape{1, 1, 1}, Shape{3, 1, 1}, Shape{1, 5, 1}, Shape{3, 5, 41}, Shape{1, 5, 41}}) {
      const Tensor x = random_tensor({3, 5, 41}, 1);
      const Tensor grad = random_tensor(kept, 2);
      const Tensor reference = random_tensor(kept, 3);
      Tensor expected = poisoned(x.shape(), DType::f64);
      cpu::reduce.backward(op, grad.to(DType::f64), x.to(DType::f64), reference.to(DType::f64), expected);
      Tensor actual = poisoned(x.shape(), DType::f32, device());
      kernels().backward(op, here(grad), here(x), here(reference), actual);
      EXPECT_LE(relative_error(actual, expected), 1e-6) << static_cast<int>(op) << kept;
    }
  }
}

TEST_P(ReduceKernels, CumsumAgreesWithFloat64AlongEachAxis) {
  for (const auto& [shape, axis] : std::vector<std::pair<Shape, int>>{
           {{1000}, 0}, {{3, 259, 2}, 1}, {{5, 40, 35}, 1}, {{7, 5}, 0}, {{4, 600}, 1}, {{2, 0}, 1}}) {
    const Tensor x = random_tensor(shape, 1, 0.0, 1.0);
    for (const bool reverse : {false, true}) {
      Tensor expected = poisoned(shape, DType::f64);
      cpu::reduce.cumsum(x.to(DType::f64), axis, reverse, expected);
      Tensor actual = poisoned(shape, DType::f32, device());
      kernels().cumsum(here(x), axis, reverse, actual);
      EXPECT_LE(relative_error(actual, expected), 1e-6) << shape << reverse;
    }
  }
}

TEST_P(ReduceKernels, NanWinsAMaximum) {
  Tensor x = Tensor::full({500}, 1.0);
  x.data<float>()[317] = std::numeric_limits<float>::quiet_NaN();
  Tensor actual = Tensor::zeros({1}, DType::f32, device());
  kernels().forward(Reduction::maximum, x.to(device()), {}, 1.0, actual);
  EXPECT_TRUE(std::isnan(actual.item()));
}

}  // namespace
}  // namespace cinnabar
