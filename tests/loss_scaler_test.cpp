#include "layers/loss_scaler.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "autograd/cast.hpp"
#include "autograd/elementwise.hpp"
#include "autograd/losses.hpp"
#include "autograd/reduce.hpp"
#include "layers/activation.hpp"
#include "layers/linear.hpp"
#include "tests/devices.hpp"
#include "tests/scratch_folder.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

/// One parameter of one element whose gradient is whatever is asked for.
struct OneNumber {
  Variable p{Tensor::full({1}, 1.0), true};
  Sgd sgd{{{"p", p}}, SgdOptions{1.0}};

  void backward(const LossScaler& scaler, double slope) {
    sgd.clear_gradients();
    scaler.scaled(sum(p * slope)).backward();
  }
  double value() const { return p.value().item(); }
};

TEST(LossScaler, StepsByTheUnscaledGradient) {
  OneNumber net;
  LossScaler scaler;
  net.backward(scaler, 0.25);
  EXPECT_EQ(net.p.grad().item(), 0.25 * 65536);
  EXPECT_TRUE(scaler.step(net.sgd));
  EXPECT_EQ(net.value(), 0.75);
}

TEST(LossScaler, LeavesOutStepsThatOverflowAndShrinks) {
  OneNumber net;
  LossScaler scaler({1024, 2, 0.25, 10});
  net.backward(scaler, 1e37);
  EXPECT_FALSE(scaler.step(net.sgd));
  EXPECT_EQ(net.value(), 1.0);
  EXPECT_EQ(scaler.scale(), 256);
  net.backward(scaler, NAN);
  EXPECT_FALSE(scaler.step(net.sgd));
  EXPECT_EQ(scaler.scale(), 64);
  net.backward(scaler, 0.5);
  EXPECT_TRUE(scaler.step(net.sgd));
  EXPECT_EQ(net.value(), 0.5);
}

TEST(LossScaler, GrowsAfterCleanStepsInARow) {
  OneNumber net;
  LossScaler scaler({8, 2, 0.5, 3});
  const auto run = [&](double slope) {
    net.backward(scaler, slope);
    scaler.step(net.sgd);
    return scaler.scale();
  };
  EXPECT_EQ(run(0), 8);
  EXPECT_EQ(run(0), 8);
  EXPECT_EQ(run(INFINITY), 4);  // starts the count anew
  EXPECT_EQ(run(0), 4);
  EXPECT_EQ(run(0), 4);
  EXPECT_EQ(run(0), 8);
  EXPECT_EQ(run(0), 8);
}

TEST(LossScaler, GradientsCanBeSeenUnscaledOnce) {
  OneNumber net;
  LossScaler scaler;
  net.backward(scaler, 3.0);
  EXPECT_TRUE(scaler.unscale(net.sgd));
  EXPECT_EQ(net.p.grad().item(), 3.0);
  EXPECT_THROW(scaler.unscale(net.sgd), Error);
  clip_gradient_norm(net.sgd.parameters(), 0.5);
  EXPECT_TRUE(scaler.step(net.sgd));
  EXPECT_NEAR(net.value(), 0.5, 1e-6);
  net.backward(scaler, INFINITY);
  EXPECT_FALSE(scaler.unscale(net.sgd));
  EXPECT_FALSE(scaler.step(net.sgd));
}

TEST(LossScaler, GivesUpWhereTheScaleIsNotToBlame) {
  OneNumber net;
  LossScaler scaler({1, 2, 0.125, 1});
  const auto diverged = [&] {
    for (int step = 0; step < 10; ++step) {
      net.backward(scaler, NAN);
      scaler.step(net.sgd);
    }
  };
  EXPECT_THROW(diverged(), Error);
  EXPECT_EQ(net.value(), 1.0);
}

TEST(LossScaler, StateSurvivesAFile) {
  const ScratchFolder folder;
  OneNumber net;
  LossScaler first({8, 2, 0.5, 2});
  net.backward(first, INFINITY);
  first.step(net.sgd);
  net.backward(first, 0);
  first.step(net.sgd);
  save_safetensors(folder / "scaler.safetensors", first.state());
  LossScaler second({1, 2, 0.5, 2});
  second.load_state(load_safetensors(folder / "scaler.safetensors"));
  EXPECT_EQ(second.scale(), 4);
  net.backward(second, 0);
  second.step(net.sgd);
  EXPECT_EQ(second.scale(), 8);
  EXPECT_THROW(second.load_state({}), InputError);
  SafeTensors broken = first.state();
  broken.tensors["scale"].fill(-1.0);
  EXPECT_THROW(second.load_state(broken), InputError);
}

TEST(LossScaler, RefusesNonsense) {
  EXPECT_THROW(LossScaler({0.0}), Error);
  EXPECT_THROW(LossScaler({INFINITY}), Error);
  EXPECT_THROW(LossScaler({1, 0.5}), Error);
  EXPECT_THROW(LossScaler({1, 2, 1.0}), Error);
  EXPECT_THROW(LossScaler({1, 2, 0.5, 0}), Error);
}

/// Two linear layers whose activations, and so their gradients, are stored in f16; the parameters are f32.
class HalfNetwork : public Layer {
 public:
  explicit HalfNetwork(Generator& generator) : first(2, 8, generator), second(8, 1, generator) {
    add_child("first", first);
    add_child("bend", bend);
    add_child("second", second);
  }
  Variable forward(const Variable& x) override { return stored(second(stored(bend(stored(first(x)))))); }

  Linear first;
  PRelu bend;
  Linear second;

 private:
  static Variable stored(const Variable& x) { return cast(cast(x, DType::f16), DType::f32); }
};

class MixedPrecisionOn : public OnDevice {
 protected:
  /// Learns the product of two numbers with a loss that counts as little as one voxel of a large volume does.
  /// Without a scaler the gradients stay as they are.
  struct Outcome {
    double first_loss, last_loss;
    double first_gradient;
    int skipped = 0;
  };
  Outcome train(LossScaler* scaler) const {
    const Tensor points = random_tensor({32, 2}, 1);
    const auto xy = points.to_vector<float>();
    std::vector<float> products;
    for (std::size_t i = 0; i < xy.size(); i += 2) products.push_back(xy[i] * xy[i + 1]);
    const Variable x(points.to(device()));
    const Variable y(Tensor::from(products, {32, 1}).to(device()));
    Generator generator(2);
    HalfNetwork net(generator);
    net.to(device());
    AdamOptions options{0.05};
    options.epsilon = 1e-14;
    Adam adam(net.named_parameters(), options);
    Outcome outcome{};
    for (int step = 0; step < 100; ++step) {
      adam.clear_gradients();
      const Variable loss = mse_loss(net(x), y) * 1e-7;
      if (scaler == nullptr) {
        loss.backward();
        adam.step();
      } else {
        scaler->scaled(loss).backward();
        outcome.skipped += scaler->step(adam) ? 0 : 1;
      }
      if (step == 0) outcome.first_loss = loss.value().item();
      if (step == 0) outcome.first_gradient = gradient_norm(net.parameters());
      outcome.last_loss = loss.value().item();
    }
    for (const Variable& p : net.parameters()) EXPECT_EQ(p.value().dtype(), DType::f32);
    return outcome;
  }
};

TEST_P(MixedPrecisionOn, GradientsVanishWithoutAScale) {
  const Outcome outcome = train(nullptr);
  EXPECT_EQ(outcome.first_gradient, 0.0);
  EXPECT_EQ(outcome.last_loss, outcome.first_loss);
}

TEST_P(MixedPrecisionOn, AScaleLetsTheNetworkLearn) {
  LossScaler scaler;
  const Outcome outcome = train(&scaler);
  EXPECT_GT(outcome.first_gradient, 0.0);
  EXPECT_EQ(outcome.skipped, 0);
  EXPECT_LT(outcome.last_loss, 0.1 * outcome.first_loss);
}

TEST_P(MixedPrecisionOn, AScaleFarTooLargeFindsItsWayDown) {
  LossScaler scaler({0x1p60});
  const Outcome outcome = train(&scaler);
  EXPECT_GT(outcome.skipped, 10);
  EXPECT_LT(outcome.skipped, 60);
  EXPECT_EQ(scaler.scale(), std::ldexp(1.0, 60 - outcome.skipped));
  EXPECT_LT(outcome.last_loss, 0.1 * outcome.first_loss);
}

CINNABAR_ON_EACH_DEVICE(MixedPrecisionOn);

}  // namespace
}  // namespace cinnabar::testing
