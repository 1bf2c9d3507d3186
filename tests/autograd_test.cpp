#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "autograd/elementwise.hpp"
#include "autograd/gradcheck.hpp"
#include "autograd/reduce.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"

namespace cinnabar {
namespace {

using testing::random_tensor;

class Autograd : public testing::OnDevice {
 protected:
  Variable leaf(const std::vector<float>& values) const {
    return Variable(Tensor::from(values, {static_cast<std::int64_t>(values.size())}).to(device()), true);
  }
  Tensor ones(std::int64_t count) const { return Tensor::full({count}, 1.0, DType::f32, device()); }
};
CINNABAR_ON_EACH_DEVICE(Autograd);

TEST_P(Autograd, AddsTheGradientsOfAVariableUsedTwiceAndOverCalls) {
  const Variable x = leaf({1, 2, 3});
  (x * x + 2.0 * x).backward(ones(3));
  EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{4, 6, 8}));
  const Tensor before = x.grad();
  (x + x + x).backward(ones(3));
  EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{7, 9, 11}));
  EXPECT_EQ(before.to_vector<float>(), (std::vector<float>{4, 6, 8})) << "a gradient once handed out changed";
}

TEST_P(Autograd, GradientsOfTwoLeavesDoNotShareMemory) {
  const Variable x = leaf({1, 2});
  const Variable y = leaf({3, 4});
  const Tensor seed = ones(2);
  (x + y).backward(seed);
  EXPECT_NE(x.grad().raw(), y.grad().raw());
  EXPECT_NE(x.grad().raw(), seed.raw());
}

TEST_P(Autograd, LeavesNoMemoryBehind) {
  const MemoryUse before = memory_use(device().type);
  {
    const Variable x = leaf({1, 2, 3});
    const Variable y = sum(exp(x) * sigmoid(x) / (1.0 + square(x)));
    y.backward({}, true);
    y.backward();
    const Variable never_run = tanh(x) * x;
  }
  const MemoryUse after = memory_use(device().type);
  EXPECT_EQ(after.live_blocks, before.live_blocks);
  EXPECT_EQ(after.live_bytes, before.live_bytes);
}

TEST_P(Autograd, BackwardFreesWhatTheGraphHeld) {
  const Variable x(Tensor::full({1000}, 1.0, DType::f32, device()), true);
  const std::int64_t with_leaf = memory_use(device().type).live_bytes;
  const Variable y = sum(exp(exp(exp(x))));
  y.backward();
  // The gradient, the result and nothing else.
  EXPECT_LE(memory_use(device().type).live_bytes, with_leaf + 4000 + 8);
}

TEST(AutogradGraph, AChainOfAMillionOpsNeitherRunsNorDiesRecursively) {
  const Variable x(Tensor::full({1}, 1.0), true);
  Variable y = x;
  for (int i = 0; i < 1000000; ++i)
    y = record_one("step", y.value(), {y}, [](const Tensor& grad) { return std::vector<Tensor>{grad}; });
  y.backward();
  EXPECT_EQ(x.grad().item(), 1.0);
  Variable unused = x;  // its ops hold their inputs twice; dying recursively, a fifth overflows the stack too
  for (int i = 0; i < 200000; ++i)
    unused = record_one("step", unused.value(), {unused},
                        [kept = unused](const Tensor& grad) { return std::vector<Tensor>{grad}; });
}

TEST(AutogradGraph, SecondBackwardNeedsRetainGraph) {
  const Variable x(Tensor::full({1}, 3.0), true);
  const Variable y = x * x;
  y.backward({}, true);
  y.backward();
  EXPECT_EQ(x.grad().item(), 12.0);
  try {
    y.backward();
    FAIL() << "backward over a freed graph went through";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("retain_graph"), std::string::npos) << error.what();
  }
  EXPECT_THROW((y * 2.0).backward(), Error) << "a new op above a freed graph";
  EXPECT_EQ(x.grad().item(), 12.0);
}

TEST(AutogradGraph, NoGradRecordsNothing) {
  Variable x(Tensor::full({1}, 3.0), true);
  {
    const NoGrad no_grad;
    EXPECT_FALSE(grad_enabled());
    const Variable y = x * x;
    EXPECT_FALSE(y.requires_grad());
    EXPECT_THROW(y.backward(), Error);
  }
  EXPECT_TRUE(grad_enabled());
  EXPECT_TRUE((x * x).requires_grad());
  EXPECT_FALSE((x.detach() * 2.0).requires_grad());
  (x * x.detach()).backward();
  EXPECT_EQ(x.grad().item(), 3.0);
  x.clear_grad();
  EXPECT_FALSE(x.grad().defined());
}

TEST(AutogradGraph, EachOutputOfAnOpGetsItsOwnGradient) {
  const Variable x(Tensor::full({2}, 1.0), true);
  const auto split = [&] {
    return record("split", {Tensor::full({2}, 1.0), Tensor::full({2}, 2.0), Tensor::zeros({2}, DType::i32)},
                  {x}, [](std::span<const Tensor> grads) {
                    EXPECT_FALSE(grads[0].defined());
                    EXPECT_FALSE(grads[2].defined());
                    return std::vector<Tensor>{grads[1]};
                  });
  };
  const std::vector<Variable> parts = split();
  EXPECT_FALSE(parts[2].requires_grad());
  sum(parts[1] * 5.0).backward();
  EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{5, 5}));
}

TEST(AutogradGraph, BackwardFromSeveralResultsSharesOnePass) {
  const Variable x(Tensor::full({2}, 3.0), true);
  const Variable shared = square(x);
  backward({sum(shared), shared}, {{}, Tensor::full({2}, 10.0)});
  EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{66, 66}));
}

TEST(AutogradGraph, WrongGradientsAreNamed) {
  const Variable x(Tensor::zeros({3}), true);
  const auto returning = [&](std::vector<Tensor> gradients) {
    return record_one("culprit", Tensor::zeros({1}), {x}, [=](const Tensor&) { return gradients; });
  };
  for (const auto& gradients : std::vector<std::vector<Tensor>>{{Tensor::zeros({4})},
                                                                {Tensor::zeros({3}, DType::f64)},
                                                                {},
                                                                {Tensor::zeros({3}), Tensor::zeros({3})}}) {
    try {
      returning(gradients).backward();
      FAIL() << "a wrong gradient went through";
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("culprit"), std::string::npos) << error.what();
    }
  }
  returning({Tensor{}}).backward();
  EXPECT_FALSE(x.grad().defined());
}

TEST(AutogradGraph, MisuseIsRefused) {
  const Variable x(Tensor::zeros({2}), true);
  EXPECT_THROW((x * 2.0).backward(), Error) << "no seed for two elements";
  EXPECT_THROW((x * 2.0).backward(Tensor::zeros({3})), Error);
  EXPECT_THROW(Variable(Tensor::zeros({2}, DType::i32), true), Error);
  EXPECT_THROW(Variable().value(), Error);
  Variable result = x * 2.0;
  EXPECT_THROW(result.set_value(Tensor::zeros({2})), Error);
  Variable leaf = x;
  EXPECT_THROW(leaf.set_value(Tensor::zeros({3})), Error);
  leaf.set_value(Tensor::full({2}, 4.0));
  EXPECT_EQ(x.value().to_vector<float>(), (std::vector<float>{4, 4}));
}

std::vector<Variable> long_segment(const std::vector<Variable>& inputs) {
  Variable y = inputs[0];
  for (int i = 0; i < 20; ++i) y = tanh(y * 1.1) + inputs[1];
  return {y, sum(square(y))};
}

TEST(Checkpoint, GivesTheSameGradientInLessMemory) {
  const Tensor start = random_tensor({1 << 14}, 1);
  const Tensor shift = Tensor::full({}, 0.1);
  const auto run = [&](bool checkpointed, std::vector<Tensor>& results) {
    const Variable x(start, true);
    const Variable s(shift, true);
    reset_peak_memory(DeviceType::cpu);
    const std::int64_t before = memory_use(DeviceType::cpu).live_bytes;
    Variable loss;
    Variable state = x;
    for (int segment = 0; segment < 8; ++segment) {
      const auto outputs = checkpointed ? checkpoint(long_segment, {state, s}) : long_segment({state, s});
      state = outputs[0];
      loss = loss.defined() ? loss + outputs[1] : outputs[1];
    }
    loss.backward();
    results = {loss.value(), x.grad(), s.grad()};
    return memory_use(DeviceType::cpu).peak_bytes - before;
  };
  std::vector<Tensor> plain;
  std::vector<Tensor> recomputed;
  const std::int64_t plain_bytes = run(false, plain);
  const std::int64_t checkpoint_bytes = run(true, recomputed);
  EXPECT_TRUE(testing::same_values(plain[0], recomputed[0]));
  EXPECT_TRUE(testing::same_values(plain[1], recomputed[1]));
  // A variable used in every segment has its terms added segment by segment, in another order.
  EXPECT_LT(testing::relative_error(plain[2], recomputed[2]), 1e-6);
  EXPECT_LT(checkpoint_bytes, plain_bytes / 3);
}

TEST(Checkpoint, ReachesParametersThatTheSegmentCaptures) {
  const Variable weight(Tensor::full({3}, 2.0), true);
  const Variable input(Tensor::full({3}, 5.0));
  const auto outputs = checkpoint(
      [weight](const std::vector<Variable>& in) { return std::vector<Variable>{in[0] * weight}; }, {input});
  sum(outputs[0]).backward();
  EXPECT_EQ(weight.grad().to_vector<float>(), (std::vector<float>{5, 5, 5}));
}

TEST(Checkpoint, NestsAndPassesGradcheck) {
  const auto inner = [](const std::vector<Variable>& in) {
    return std::vector<Variable>{sin(in[0]) * in[1]};
  };
  const auto outer = [inner](const std::vector<Variable>& in) {
    const Variable y = checkpoint(inner, in)[0];
    return std::vector<Variable>{exp(y), y * in[1]};
  };
  const auto result =
      gradcheck([outer](const std::vector<Variable>& in) { return checkpoint(outer, in); },
                {random_tensor({5}, 1, -1, 1, DType::f64), random_tensor({5}, 2, -1, 1, DType::f64)});
  EXPECT_TRUE(result) << result.message;
}

Variable square_with_slope(const Variable& x, double slope) {
  const Tensor value = x.value();
  return record_one("wrong_square", square(x.detach()).value(), {x}, [=](const Tensor& grad) {
    return std::vector<Tensor>{(Variable(grad) * Variable(value) * slope).value()};
  });
}

TEST(Gradcheck, AcceptsARightGradientAndRejectsAWrongOne) {
  const Tensor x = random_tensor({4, 3}, 3, 0.5, 1.0, DType::f64);
  const auto with_slope = [](double slope) {
    return [slope](const std::vector<Variable>& in) { return square_with_slope(in[0], slope); };
  };
  EXPECT_TRUE(gradcheck(with_slope(2.0), {x}));
  const GradcheckResult wrong = gradcheck(with_slope(2.01), {x});
  EXPECT_FALSE(wrong);
  EXPECT_NE(wrong.message.find("12 of 12 entries differ"), std::string::npos) << wrong.message;
  EXPECT_NE(wrong.message.find("input 0 [4, 3] entry 0"), std::string::npos) << wrong.message;
  GradcheckOptions few;
  few.max_entries = 5;
  EXPECT_NE(gradcheck(with_slope(2.01), {x}, few).message.find("5 of 5"), std::string::npos);
}

TEST(Gradcheck, SeesAMissingGradientAndRefusesFloat32) {
  const auto forgetful = [](const std::vector<Variable>& in) {
    return record_one("forgetful", square(in[0].detach()).value(), {in[0]},
                      [](const Tensor&) { return std::vector<Tensor>{Tensor{}}; });
  };
  EXPECT_FALSE(gradcheck(forgetful, {Tensor::full({2}, 1.0, DType::f64)}));
  EXPECT_THROW(gradcheck(forgetful, {Tensor::full({2}, 1.0)}), Error);
}

TEST(TaylorTest, TellsARightGradientFromAWrongOneByItsOrder) {
  const Tensor point = random_tensor({50}, 4, 0.5, 1.0, DType::f64);
  const Tensor direction = random_tensor({50}, 5, 0.5, 1.0, DType::f64);
  const TaylorResult right =
      taylor_test([](const Variable& x) { return sum(exp(x) * square(x)); }, point, direction);
  for (const double order : right.first_orders) EXPECT_NEAR(order, 1.0, 0.1) << right.message;
  for (const double order : right.second_orders) EXPECT_NEAR(order, 2.0, 0.1) << right.message;
  const TaylorResult wrong =
      taylor_test([](const Variable& x) { return sum(square_with_slope(x, 1.5)); }, point, direction);
  EXPECT_NEAR(wrong.second_orders.back(), 1.0, 0.2) << wrong.message;
}

}  // namespace
}  // namespace cinnabar
