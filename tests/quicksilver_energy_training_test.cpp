// Training a Quicksilver network by the energy of matching: what it learns, and that it goes on with the same
// bits.

#include "models/quicksilver_energy_training.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "autograd/elementwise.hpp"
#include "autograd/reduce.hpp"
#include "models/quicksilver_prediction.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"
#include "tests/threads.hpp"
#include "tests/training_steps.hpp"

namespace cinnabar::testing {
namespace {

const Shape kPatch{7, 7, 7};

/// Blurred balls of which the target's lies two voxels farther along x, at places that differ by the seed.
VolumeSet shifted_balls(std::uint64_t seed, std::int64_t pairs, const Shape& spatial = {8, 9, 12}) {
  const auto ball = [&](double z, double y, double x) {
    Tensor image = Tensor::empty({1, 1, spatial[0], spatial[1], spatial[2]});
    float* value = image.data<float>();
    for (std::int64_t i = 0; i < spatial[0]; ++i) {
      for (std::int64_t j = 0; j < spatial[1]; ++j) {
        for (std::int64_t k = 0; k < spatial[2]; ++k) {
          const double r =
              std::hypot(static_cast<double>(i) - z, static_cast<double>(j) - y, static_cast<double>(k) - x);
          *value++ = static_cast<float>(1.0 / (1.0 + std::exp(2.0 * (r - 2.5))));
        }
      }
    }
    return image;
  };
  const Tensor places = random_tensor({pairs, 3}, seed, -0.7, 0.7);
  std::vector<Batch> stacks;
  for (std::int64_t pair = 0; pair < pairs; ++pair) {
    const float* place = places.data<float>() + 3 * pair;
    const double z = 3.5 + place[0], y = 4.0 + place[1], x = 4.5 + place[2];
    stacks.push_back({{"moving", ball(z, y, x)}, {"target", ball(z, y, x + 2.0)}});
  }
  return VolumeSet(std::move(stacks));
}

QuicksilverOptions small_network(std::uint64_t seed = 3) {
  return {.features = 2, .patch = kPatch, .seed = seed};
}

QuicksilverEnergyOptions small_training() {
  QuicksilverEnergyOptions options;
  options.matching.shooting.fluid = {0.1, 0.1, 0.01, 1};
  options.matching.shooting.time_steps = 2;
  options.stride = 6;
  options.draws = {false, false, 7};
  options.learning_rate = 5e-3;
  return options;
}

TEST(QuicksilverEnergyTraining, LearnsAShiftOfImagesItNeverSaw) {
  Quicksilver network(small_network());
  QuicksilverEnergyOptions options = small_training();
  options.epochs = 15;
  QuicksilverEnergyTraining training(network, shifted_balls(1, 4), shifted_balls(50, 1), options);
  on_threads(1, [&] { go_on(training, training.total_steps()); });
  EXPECT_GT(training.curve().front().training.ratio, 0.9);
  EXPECT_LT(training.best().validation.ratio, 0.6);
  // As a prediction is used: the map pulls the ball two voxels along x.
  const NoGrad quiet;
  const ImagePair pair = image_pair(whole_volume(shifted_balls(60, 1), 0), Device::cpu());
  const Tensor momentum = predict_momentum(network, pair.moving, pair.fixed, {.stride = 4});
  const MatchingOptions& matching = options.matching;
  const double before = matching_data(Variable(pair.moving), pair, matching).value().item();
  const MatchingTerms terms = matching_terms(pair, Variable(momentum), matching);
  EXPECT_LT(terms.data.value().item(), 0.5 * before);
  EXPECT_GT(smallest_jacobian(terms.flow), 0.0);
}

TEST(QuicksilverEnergyTraining, ACorrectionNetworkLearnsWhatThePredictionLeaves) {
  Quicksilver prediction(small_network()), correction(small_network(4));
  QuicksilverEnergyOptions options = small_training();
  options.epochs = 5;
  QuicksilverEnergyTraining first(prediction, shifted_balls(1, 4), shifted_balls(50, 1), options);
  on_threads(1, [&] { go_on(first, first.total_steps()); });
  const SafeTensors kept = prediction.state();
  options.epochs = 10;
  QuicksilverEnergyTraining second(correction, shifted_balls(1, 4), shifted_balls(50, 1), options,
                                   &prediction);
  on_threads(1, [&] { go_on(second, second.total_steps()); });
  EXPECT_LT(second.best().validation.ratio, 0.9 * first.best().validation.ratio);
  for (const auto& [name, weight] : prediction.state().tensors) {
    EXPECT_EQ(weight.to_vector<float>(), kept.tensors.at(name).to_vector<float>()) << name;
  }
}

TEST(QuicksilverEnergyTraining, ComesNearToMomentaWhereItIsTold) {
  // Momenta of a flow to the other side, which the energy alone would never choose.
  const VolumeSet balls = shifted_balls(1, 3);
  std::vector<Batch> stacks;
  for (std::int64_t i = 0; i < balls.size(); ++i) {
    Batch images = whole_volume(balls, i);
    Tensor momentum = Tensor::zeros(images.at("moving").shape().with(1, 3));
    for (std::int64_t v = 0; v < momentum.numel() / 3; ++v) {
      momentum.data<float>()[v] = -0.02f * images.at("moving").data<float>()[v];
    }
    images["momentum"] = momentum;
    stacks.push_back(std::move(images));
  }
  QuicksilverEnergyOptions options = small_training();
  options.velocity = 100.0;
  options.learning_rate = 2e-3;
  options.epochs = 25;
  Quicksilver network(small_network());
  QuicksilverEnergyTraining training(network, VolumeSet(stacks), std::nullopt, options);
  on_threads(1, [&] { go_on(training, training.total_steps()); });
  EXPECT_LT(training.curve().back().training.ratio, 0.5 * training.curve().front().training.ratio);
  options.draws.swap = true;
  EXPECT_THROW(QuicksilverEnergyTraining(network, VolumeSet(stacks), std::nullopt, options), Error);
}

TEST(QuicksilverEnergyTraining, RefusesBackground) {
  Quicksilver network(small_network());
  const Tensor nothing = Tensor::zeros({1, 1, 8, 8, 8});
  const VolumeSet empty({Batch{{"moving", nothing}, {"target", nothing}}});
  QuicksilverEnergyTraining training(network, empty, std::nullopt, small_training());
  EXPECT_THROW(training.advance(), InputError);
}

class QuicksilverEnergyTrainingOn : public OnDevice {};
CINNABAR_ON_EACH_DEVICE(QuicksilverEnergyTrainingOn);

TEST_P(QuicksilverEnergyTrainingOn, GoesOnWithTheSameBits) {
  QuicksilverEnergyOptions options = small_training();
  options.draws.swap = options.draws.mirror = true;
  options.moving_average = 0.9;
  options.validation_steps = 2;
  options.epochs = 2;
  const Shape small{5, 6, 8};
  const VolumeSet pairs = shifted_balls(1, 2, small), one = shifted_balls(9, 1, small);
  Quicksilver network(small_network()), other(small_network(9));
  network.to(device());
  other.to(device());
  QuicksilverEnergyTraining whole(network, pairs, one, options);
  go_on(whole, 1);
  const SafeTensors state = whole.state();
  QuicksilverEnergyTraining rest(other, pairs, one, options);
  rest.load_state(state);
  go_on(whole, whole.total_steps());
  go_on(rest, rest.total_steps());
  EXPECT_TRUE(bytes_of(whole) == bytes_of(rest));
}

}  // namespace
}  // namespace cinnabar::testing
