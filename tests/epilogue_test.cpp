#include "autograd/epilogue.hpp"

#include <gtest/gtest.h>

#include "autograd/dropout.hpp"
#include "autograd/elementwise.hpp"
#include "autograd/gradcheck.hpp"
#include "autograd/layout.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"
#include "tests/threads.hpp"

namespace cinnabar::testing {
namespace {

constexpr Activation kActivations[] = {Activation::none, Activation::relu, Activation::leaky_relu,
                                       Activation::prelu};

/// Odd sizes: rows shorter than a group of random numbers, rows and channels of more than one task or block.
const Shape kShapes[] = {{1, 1}, {3, 5}, {2, 3, 2, 1, 3}, {2, 3, 7, 5, 9}, {1, 2, 33, 31, 37}};

Shape per_channel(const Shape& shape, const Tensor& values) {
  Shape result = shape;
  for (int axis = 0; axis < shape.rank(); ++axis) result = result.with(axis, 1);
  return result.with(1, values.numel());
}

/// The three ops one after another.
Variable one_by_one(const Variable& x, const EpilogueInputs& e) {
  Variable y = x;
  if (e.bias.defined()) y = y + reshape(e.bias, per_channel(x.shape(), e.bias.value()));
  if (e.activation == Activation::relu) y = relu(y);
  if (e.activation == Activation::leaky_relu) y = leaky_relu(y, e.slope);
  if (e.activation == Activation::prelu) y = prelu(y, e.weight);
  return e.dropout > 0.0 ? dropout(y, e.dropout, e.sequence) : y;
}

EpilogueInputs inputs_for(Activation activation, const Shape& shape, bool shared, DType dtype,
                          Device device) {
  EpilogueInputs inputs;
  inputs.bias = Variable(random_tensor({shape[1]}, 1, -0.5, 0.5, dtype).to(device), true);
  inputs.activation = activation;
  inputs.slope = 0.1;
  if (activation == Activation::prelu) {
    inputs.weight = Variable(random_tensor({shared ? 1 : shape[1]}, 2, -0.5, 0.5, dtype).to(device), true);
  }
  inputs.dropout = 0.3;
  inputs.sequence = {11, 12, 13};
  return inputs;
}

TEST(Epilogue, OfOneChannelByHand) {
  const Variable x(Tensor::from<float>({-3, -1, 0, 2}, {1, 1, 4}), true);
  EpilogueInputs inputs;
  inputs.bias = Variable(Tensor::from<float>({1}, {1}), true);
  inputs.activation = Activation::prelu;
  inputs.weight = Variable(Tensor::from<float>({-0.5}, {1}), true);
  const Variable y = epilogue(x, inputs);
  EXPECT_EQ(y.value().to_vector<float>(), (std::vector<float>{1, 0, 1, 3}));
  y.backward(Tensor::from<float>({1, 10, 100, 1000}, {1, 1, 4}));
  EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{-0.5, -5, 100, 1000}));
  EXPECT_EQ(inputs.bias.grad().item(), 1094.5);
  EXPECT_EQ(inputs.weight.grad().item(), -2.0);
}

TEST(Epilogue, Gradients) {
  const Shape shape{2, 3, 2, 3, 2};
  const Tensor x = random_tensor(shape, 3, -1, 1, DType::f64);
  for (const Activation activation : kActivations) {
    for (const bool shared : {false, true}) {
      const EpilogueInputs given = inputs_for(activation, shape, shared, DType::f64, Device::cpu());
      std::vector<Tensor> points{x, given.bias.value()};
      if (given.weight.defined()) points.push_back(given.weight.value());
      const auto fn = [&](const std::vector<Variable>& v) {
        EpilogueInputs inputs = given;
        inputs.bias = v[1];
        if (inputs.weight.defined()) inputs.weight = v[2];
        return epilogue(v[0], inputs);
      };
      const GradcheckResult result = gradcheck(fn, points);
      EXPECT_TRUE(result) << result.message;
    }
  }
}

TEST(Epilogue, GradcheckRejectsAnotherMask) {
  const Tensor x = random_tensor({2, 3, 4}, 4, -1, 1, DType::f64);
  const auto wrong = [](const std::vector<Variable>& v) {
    Epilogue forward;
    forward.dropout = 0.5;
    Tensor y = Tensor::empty_like(v[0].value());
    cpu::epilogue.forward(v[0].value(), forward, y);
    return record_one("wrong", y, {v[0]}, [=](const Tensor& grad) {
      Epilogue backward = forward;
      backward.sequence.offset = 1;
      Tensor grad_x = Tensor::empty_like(grad), none;
      cpu::epilogue.backward(grad, {}, backward, grad_x, none, none);
      return std::vector<Tensor>{grad_x};
    });
  };
  EXPECT_FALSE(gradcheck(wrong, {x}));
}

TEST(Epilogue, RefusesMisfits) {
  const Variable x(Tensor::zeros({2, 3, 4}));
  const auto with = [&](const auto& change) {
    EpilogueInputs inputs;
    change(inputs);
    return epilogue(x, inputs);
  };
  EXPECT_THROW(with([](EpilogueInputs& e) { e.bias = Variable(Tensor::zeros({4})); }), Error);
  EXPECT_THROW(with([](EpilogueInputs& e) { e.activation = Activation::prelu; }), Error);
  EXPECT_THROW(with([](EpilogueInputs& e) { e.weight = Variable(Tensor::zeros({1})); }), Error);
  EXPECT_THROW(with([](EpilogueInputs& e) {
                 e.activation = Activation::leaky_relu;
                 e.slope = -0.1;
               }),
               Error);
  EXPECT_THROW(with([](EpilogueInputs& e) { e.dropout = 1.5; }), Error);
  EXPECT_THROW(epilogue(Variable(Tensor::zeros({3})), {}), Error);
  EXPECT_THROW(epilogue(Variable(Tensor::zeros({2, 3}, DType::i32)), {}), Error);
}

TEST(Epilogue, BitsDoNotDependOnTheNumberOfThreads) {
  const Tensor x = random_tensor({2, 2, 33, 31, 37}, 5);
  const auto run = [&] {
    const EpilogueInputs e = inputs_for(Activation::prelu, x.shape(), true, DType::f32, Device::cpu());
    const Variable in(x, true);
    const Variable y = epilogue(in, e);
    y.backward(x);
    return std::vector<Tensor>{y.value(), in.grad(), e.bias.grad(), e.weight.grad()};
  };
  const std::vector<Tensor> one = on_threads(1, run), three = on_threads(3, run);
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(same_values(one[i], three[i])) << i;
}

class EpilogueOn : public OnDevice {};

TEST_P(EpilogueOn, HasTheBitsOfItsThreeOps) {
  for (const Shape& shape : kShapes) {
    for (const Activation activation : kActivations) {
      for (const bool shared : {false, true}) {
        const Tensor value = random_tensor(shape, 6).to(device());
        const Tensor seed = random_tensor(shape, 7).to(device());
        const EpilogueInputs fused = inputs_for(activation, shape, shared, DType::f32, device());
        const EpilogueInputs single = inputs_for(activation, shape, shared, DType::f32, device());
        const Variable x(value, true), other(value, true);
        const Variable y = epilogue(x, fused), expected = one_by_one(other, single);
        EXPECT_TRUE(same_values(y.value(), expected.value())) << shape;
        y.backward(seed);
        expected.backward(seed);
        EXPECT_TRUE(same_values(x.grad(), other.grad())) << shape;
        EXPECT_LT(relative_error(fused.bias.grad(), single.bias.grad()), 3e-6) << shape;
        if (fused.weight.defined()) {
          EXPECT_LT(relative_error(fused.weight.grad(), single.weight.grad()), 3e-6) << shape;
        }
      }
    }
  }
}

TEST_P(EpilogueOn, AssignsAndWorksInPlace) {
  const Shape shape{2, 3, 5, 4, 3};
  const EpilogueInputs inputs = inputs_for(Activation::prelu, shape, false, DType::f32, device());
  Epilogue e{inputs.bias.value(),
             inputs.activation,
             inputs.slope,
             inputs.weight.value(),
             inputs.dropout,
             inputs.sequence,
             poisoned(shape, DType::f32, device())};
  const EpilogueKernels& kernels = epilogue_on(device());
  const Tensor x = random_tensor(shape, 8).to(device());
  Tensor y = poisoned_like(x), in_place = x.clone();
  kernels.forward(x, e, y);
  kernels.forward(in_place, e, in_place);
  EXPECT_TRUE(same_values(y, in_place));
  EXPECT_TRUE(same_values(
      e.before, (Variable(x) + reshape(inputs.bias, per_channel(shape, inputs.bias.value()))).value()));

  Tensor grad_x = poisoned_like(x), grad_bias = poisoned({3}, DType::f32, device());
  Tensor grad_weight = poisoned({3}, DType::f32, device()), grad_in_place = x.clone(), none;
  const Tensor saved = e.before;
  e.before = Tensor();
  kernels.backward(x, saved, e, grad_x, grad_bias, grad_weight);
  kernels.backward(grad_in_place, saved, e, grad_in_place, none, none);
  EXPECT_TRUE(same_values(grad_x, grad_in_place));
  for (const double value : grad_bias.to_vector<double>()) EXPECT_TRUE(std::isfinite(value));
  for (const double value : grad_weight.to_vector<double>()) EXPECT_TRUE(std::isfinite(value));
}

CINNABAR_ON_EACH_DEVICE(EpilogueOn);

}  // namespace
}  // namespace cinnabar::testing
