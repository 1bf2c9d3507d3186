#include "layers/module.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "autograd/elementwise.hpp"
#include "autograd/reduce.hpp"
#include "layers/initializer.hpp"
#include "layers/optimizer.hpp"
#include "tests/devices.hpp"
#include "tests/scratch_folder.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

class Scale : public Module {
 public:
  explicit Scale(double start) {
    weight = add_parameter("weight", Tensor::full({2}, start));
    count = add_buffer("count", Tensor::from<std::int64_t>({7}, {1}));
  }
  Variable weight, count;
};

class Pair : public Module {
 public:
  Pair() {
    bias = add_parameter("bias", Tensor::zeros({3}));
    add_child("first", first);
    add_child("second", second);
  }
  Variable bias;
  Scale first{1.0}, second{2.0};
};

std::vector<std::string> names_of(const std::vector<NamedVariable>& variables) {
  std::vector<std::string> names;
  for (const auto& [name, variable] : variables) names.push_back(name);
  return names;
}

std::string complaint_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const InputError& error) {
    return error.what();
  }
  return {};
}

TEST(Module, NamesFollowTheTree) {
  const Pair pair;
  EXPECT_EQ(names_of(pair.named_parameters()),
            (std::vector<std::string>{"bias", "first.weight", "second.weight"}));
  EXPECT_EQ(names_of(pair.named_buffers()), (std::vector<std::string>{"first.count", "second.count"}));
  EXPECT_EQ(pair.parameter_count(), 7);
}

class Clashing : public Module {
 public:
  explicit Clashing(const char* second) {
    add_parameter("a", Tensor::zeros({1}));
    add_buffer(second, Tensor::zeros({1}));
  }
};

TEST(Module, NamesAreUsedOnceAndWithoutDots) {
  EXPECT_NO_THROW(Clashing("b"));
  EXPECT_THROW(Clashing("a"), Error);
  EXPECT_THROW(Clashing("b.c"), Error);
  EXPECT_THROW(Clashing(""), Error);
}

TEST(Module, TrainingReachesChildren) {
  Pair pair;
  EXPECT_TRUE(pair.second.training());
  pair.eval();
  EXPECT_FALSE(pair.training() || pair.first.training() || pair.second.training());
  pair.train();
  EXPECT_TRUE(pair.second.training());
}

TEST(Module, StateSurvivesAFile) {
  const ScratchFolder folder;
  Pair saved;
  saved.first.weight.set_value(Tensor::from<float>({0.1f, -3.0f}, {2}));
  saved.save(folder / "pair.safetensors");
  Pair loaded;
  const Variable held = loaded.first.weight;
  loaded.load(folder / "pair.safetensors");
  EXPECT_TRUE(same_values(held.value(), saved.first.weight.value()));
  EXPECT_EQ(loaded.second.count.value().to_vector<std::int64_t>(), (std::vector<std::int64_t>{7}));
}

TEST(Module, MisfitsAreListedTogetherAndChangeNothing) {
  Pair pair;
  SafeTensors state = pair.state();
  state.tensors["bias"].fill(5.0);
  state.tensors.erase("first.weight");
  state.tensors["second.weight"] = Tensor::zeros({3});
  state.tensors["second.count"] = Tensor::zeros({1});
  state.tensors["third.weight"] = Tensor::zeros({1});
  const std::string complaint = complaint_of([&] { pair.load_state(state); });
  for (const char* part : {"missing first.weight", "second.weight is f32 [3]", "second.count is f32",
                           "unexpected third.weight"}) {
    EXPECT_NE(complaint.find(part), std::string::npos) << part << " in: " << complaint;
  }
  EXPECT_EQ(pair.bias.value().to_vector<float>(), (std::vector<float>{0, 0, 0}));
  EXPECT_THROW(pair.load_state(state, false), InputError);  // shapes must fit in any case
  state.tensors.erase("second.weight");
  state.tensors.erase("second.count");
  pair.load_state(state, false);
  EXPECT_EQ(pair.bias.value().to_vector<float>(), (std::vector<float>{5, 5, 5}));
}

TEST(Module, FileErrorsNameTheFile) {
  const ScratchFolder folder;
  Pair().save(folder / "pair.safetensors");
  Scale scale(1.0);
  EXPECT_NE(complaint_of([&] { scale.load(folder / "pair.safetensors"); }).find("pair.safetensors"),
            std::string::npos);
}

TEST(Module, ConvertsFloatingOnesAndDropsGradients) {
  Pair pair;
  sum(pair.bias).backward();
  EXPECT_TRUE(pair.bias.grad().defined());
  pair.to(DType::f64);
  EXPECT_EQ(pair.bias.value().dtype(), DType::f64);
  EXPECT_EQ(pair.first.count.value().dtype(), DType::i64);
  EXPECT_FALSE(pair.bias.grad().defined());
  sum(pair.bias).backward();
  EXPECT_EQ(pair.bias.grad().dtype(), DType::f64);
  EXPECT_THROW(pair.to(DType::i32), Error);
}

TEST(Initializer, FollowsFanAndSeed) {
  Generator generator(3);
  const Tensor weight = uniform_by_fan({64, 16, 3, 3, 3}, 16 * 27, generator);
  const double bound = 1.0 / std::sqrt(16.0 * 27.0);
  double largest = 0.0;
  for (const double value : weight.to_vector<double>()) largest = std::max(largest, std::abs(value));
  EXPECT_LE(largest, bound * (1 + 1e-6));
  EXPECT_GT(largest, 0.99 * bound);
  EXPECT_EQ(fan_in({64, 16, 3, 3, 3}), 16 * 27);
  const Tensor next = uniform_by_fan({64, 16, 3, 3, 3}, 16 * 27, generator);
  EXPECT_FALSE(same_values(weight, next));
  Generator again(3);
  EXPECT_TRUE(same_values(weight, uniform_by_fan({64, 16, 3, 3, 3}, 16 * 27, again)));
  double squares = 0.0;
  const auto normal = kaiming_normal({100, 100}, generator).to_vector<double>();
  for (const double value : normal) squares += value * value / 1e4;
  EXPECT_NEAR(squares, 0.02, 0.002);
  for (const double value : xavier_uniform({10, 14}, generator).to_vector<double>()) {
    EXPECT_LE(std::abs(value), 0.5 + 1e-6);
  }
}

/// Steps down sum (p - 3)^2 / 2, whose gradient is p - 3.
void descend(Optimizer& optimizer, const std::vector<Variable>& parameters, int steps) {
  for (int step = 0; step < steps; ++step) {
    optimizer.clear_gradients();
    for (const Variable& p : parameters) (sum(square(p - 3.0)) * 0.5).backward();
    optimizer.step();
  }
}

class ModuleOn : public OnDevice {};

TEST_P(ModuleOn, MovesWholeAndComesBack) {
  Pair pair;
  pair.to(device());
  EXPECT_EQ(pair.second.weight.device(), device());
  EXPECT_EQ(pair.first.count.device(), device());
  pair.load_state(Pair().state());
  EXPECT_EQ(pair.first.count.device(), device());
  const Tensor count = pair.state().tensors.at("first.count");
  EXPECT_TRUE(count.device().is_cpu());
  EXPECT_EQ(count.item(), 7);
}

CINNABAR_ON_EACH_DEVICE(ModuleOn);

class OptimizerOn : public OnDevice {};

TEST_P(OptimizerOn, BothReachTheMinimum) {
  Pair pair;
  pair.to(device());
  Adam adam(pair.named_parameters(), adamw_options(0.05, 0.0));
  descend(adam, pair.parameters(), 400);
  for (const Variable& p : pair.parameters()) EXPECT_NEAR(p.value().to_vector<double>()[0], 3.0, 1e-3);
  Pair other;
  other.to(device());
  Sgd sgd(other.named_parameters(), {0.05, 0.9});
  descend(sgd, other.parameters(), 400);
  for (const Variable& p : other.parameters()) EXPECT_NEAR(p.value().to_vector<double>()[0], 3.0, 1e-4);
}

TEST_P(OptimizerOn, ASavedStateContinuesAsIfNothingHappened) {
  const ScratchFolder folder;
  Pair through;
  through.to(device());
  AdamOptions options;
  options.amsgrad = true;
  Adam whole(through.named_parameters(), options);
  descend(whole, through.parameters(), 6);

  Pair start;
  start.to(device());
  Adam first(start.named_parameters(), options);
  descend(first, start.parameters(), 3);
  save_safetensors(folder / "adam.safetensors", first.state());
  Pair resumed;
  resumed.load_state(start.state());
  resumed.to(device());
  Adam second(resumed.named_parameters(), options);
  second.load_state(load_safetensors(folder / "adam.safetensors"));
  descend(second, resumed.parameters(), 3);
  EXPECT_TRUE(same_values(resumed.bias.value(), through.bias.value()));
  EXPECT_TRUE(same_values(resumed.second.weight.value(), through.second.weight.value()));
}

CINNABAR_ON_EACH_DEVICE(OptimizerOn);

TEST(Optimizer, RefusesStatesOfOthers) {
  Pair pair;
  Adam adam(pair.named_parameters());
  Sgd sgd(pair.named_parameters(), {0.1, 0.9});
  descend(adam, pair.parameters(), 1);
  EXPECT_THROW(sgd.load_state(adam.state()), InputError);
  SafeTensors state = adam.state();
  state.tensors["exp_avg.other"] = Tensor::zeros({1});
  EXPECT_THROW(adam.load_state(state), InputError);
  state = adam.state();
  state.tensors["exp_avg.bias"] = Tensor::zeros({4});
  EXPECT_THROW(adam.load_state(state), InputError);
  state = adam.state();
  state.metadata["step.bias"] = "many";
  EXPECT_THROW(adam.load_state(state), InputError);
  using Named = std::vector<NamedVariable>;
  EXPECT_THROW(Adam(Named{{"p", Variable(Tensor::zeros({1}))}}), Error);
  EXPECT_THROW(Adam(Named{{"p", pair.bias}, {"p", pair.bias}}), Error);
}

TEST(Optimizer, GroupsKeepTheirOwnOptionsUnderOneFactor) {
  const Variable slow(Tensor::zeros({1}), true);
  const Variable fast(Tensor::zeros({1}), true);
  const std::vector<ParameterGroup<SgdOptions>> groups{{{{"slow", slow}}, {0.1}}, {{{"fast", fast}}, {0.2}}};
  Sgd sgd(groups);
  sgd.set_rate_factor(0.5);
  for (const Variable& p : sgd.parameters()) sum(p).backward();
  sgd.step();
  EXPECT_FLOAT_EQ(static_cast<float>(slow.value().item()), -0.05f);
  EXPECT_FLOAT_EQ(static_cast<float>(fast.value().item()), -0.1f);
}

TEST(Schedule, FollowsItsFormula) {
  EXPECT_DOUBLE_EQ(step_schedule(10, 0.5)(9), 1.0);
  EXPECT_DOUBLE_EQ(step_schedule(10, 0.5)(20), 0.25);
  const Schedule cosine = cosine_schedule(100, 0.1);
  EXPECT_DOUBLE_EQ(cosine(0), 1.0);
  EXPECT_DOUBLE_EQ(cosine(50), 0.55);
  EXPECT_DOUBLE_EQ(cosine(100), 0.1);
  EXPECT_DOUBLE_EQ(cosine(1000), 0.1);
  const Schedule warm = warmup_schedule(4, step_schedule(1, 0.5));
  EXPECT_DOUBLE_EQ(warm(0), 0.25);
  EXPECT_DOUBLE_EQ(warm(3), 1.0);
  EXPECT_DOUBLE_EQ(warm(4), 1.0);
  EXPECT_DOUBLE_EQ(warm(5), 0.5);
}

TEST(MovingAverage, FollowsSwapsAndReloads) {
  Variable p(Tensor::full({2}, 1.0), true);
  const std::vector<NamedVariable> named{{"p", p}};
  MovingAverage average(named, 0.75);
  p.set_value(Tensor::full({2}, 5.0));
  average.update();
  EXPECT_EQ(average.state().tensors.at("p").to_vector<float>(), (std::vector<float>{2, 2}));
  average.swap();
  EXPECT_EQ(p.value().to_vector<float>(), (std::vector<float>{2, 2}));
  average.swap();
  EXPECT_EQ(p.value().to_vector<float>(), (std::vector<float>{5, 5}));
  MovingAverage other(named, 0.75);
  other.load_state(average.state());
  EXPECT_EQ(other.state().tensors.at("p").to_vector<float>(), (std::vector<float>{2, 2}));
  EXPECT_THROW(other.load_state({}), InputError);
}

}  // namespace
}  // namespace cinnabar::testing
