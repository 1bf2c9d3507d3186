#include "models/quicksilver_training.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "autograd/elementwise.hpp"
#include "autograd/warp.hpp"
#include "kernels/conv3d_precision.hpp"
#include "models/quicksilver_correction.hpp"
#include "models/quicksilver_prediction.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"
#include "tests/threads.hpp"
#include "tests/training_steps.hpp"

namespace cinnabar::testing {
namespace {

const Shape kPatch{5, 5, 5};

/// Two pairs, a bright one and a dark one, whose momenta point in opposite directions, a little less where
/// the images agree. Background at the low end of x.
VolumeSet small_pairs(double zero_columns = 0.0) {
  const std::int64_t voxels = 9 * 8 * 11;
  Tensor moving = random_tensor({2, 1, 9, 8, 11}, 1, 0.1, 0.4);
  Tensor target = random_tensor({2, 1, 9, 8, 11}, 2, 0.1, 0.4);
  Tensor momentum = Tensor::empty({2, 3, 9, 8, 11});
  for (std::int64_t i = 0; i < 2 * voxels; ++i) {
    float &from = moving.data<float>()[i], &to = target.data<float>()[i];
    const std::int64_t pair = i / voxels;
    if (pair == 0) from += 0.6f;
    for (std::int64_t c = 0; c < 3; ++c) {
      momentum.data<float>()[(3 * pair + c) * voxels + i % voxels] =
          static_cast<float>(c + 1) * (pair == 0 ? 0.5f : 0.25f);
    }
    if (static_cast<double>(i % 11) < zero_columns) from = to = 0.0f;
  }
  return VolumeSet({Batch{{"moving", moving}, {"target", target}, {"momentum", momentum}}});
}

constexpr Conv3dPrecision kPrecisions[] = {Conv3dPrecision::fp32, Conv3dPrecision::tf32,
                                           Conv3dPrecision::fp16, Conv3dPrecision::bf16};

QuicksilverOptions small_network(double dropout = 0.0, std::uint64_t seed = 3,
                                 Conv3dPrecision precision = Conv3dPrecision::fp32) {
  return {.features = 2, .patch = kPatch, .dropout = dropout, .seed = seed, .precision = precision};
}

QuicksilverTrainingOptions small_training() {
  QuicksilverTrainingOptions options;
  options.patches.grid = {kPatch, {4, 4, 4}};
  options.patches.batch_size = 4;
  options.patches.seed = 7;
  return options;
}

/// Everything that can be random or be resumed.
QuicksilverTrainingOptions rich_training() {
  QuicksilverTrainingOptions options = small_training();
  options.patches.places = PatchPlaces::anywhere;
  options.patches.mirror = true;
  options.patches.intensity = 0.3;
  options.schedule = RateSchedule::cosine;
  options.moving_average = 0.9;
  options.learning_rate = 1e-2;
  options.patches.batch_size = 2;
  options.epochs = 0.5;
  options.validation_steps = 2;
  return options;
}

void fill_weights(Quicksilver& network, double value) {
  for (Variable& parameter : network.parameters()) {
    parameter.set_value(Tensor::full(parameter.shape(), value, DType::f32, parameter.device()));
  }
}

TEST(QuicksilverTraining, LearnsASmallSetByHeartInAnyPrecision) {
  for (const Conv3dPrecision precision : kPrecisions) {
    SCOPED_TRACE(name_of(precision));
    Quicksilver network(small_network(0.0, 3, precision));
    QuicksilverTrainingOptions options = small_training();
    options.learning_rate = 1e-3;
    options.epochs = 10;
    QuicksilverTraining training(network, small_pairs(), small_pairs(), options);
    on_threads(1, [&] { go_on(training, training.total_steps()); });
    EXPECT_TRUE(training.finished());
    EXPECT_GT(training.curve().front().training.ratio, 0.9);
    EXPECT_LT(training.best().validation.ratio, 0.6);
  }
}

class QuicksilverTrainingOn : public OnDevice {};
CINNABAR_ON_EACH_DEVICE(QuicksilverTrainingOn);

TEST_P(QuicksilverTrainingOn, GoesOnWithTheSameBits) {
  const auto train_from = [&](std::int64_t stop, Conv3dPrecision precision) {
    Quicksilver network(small_network(0.2, 3, precision));
    network.to(device());
    QuicksilverTraining training(network, small_pairs(), small_pairs(), rich_training());
    go_on(training, stop);
    const SafeTensors state = training.state();
    Quicksilver other(small_network(0.2, 99, precision));
    other.to(device());
    QuicksilverTraining resumed(other, small_pairs(), small_pairs(), rich_training());
    resumed.load_state(state);
    go_on(resumed, 3);
    return bytes_of(resumed);
  };
  on_threads(1, [&] {
    const std::string exact = train_from(3, Conv3dPrecision::fp32);
    for (const std::int64_t stop : {1, 2}) {
      EXPECT_TRUE(train_from(stop, Conv3dPrecision::fp32) == exact) << stop;
    }
    // fp16 has the scale of its loss to go on with.
    const std::string rounded = train_from(3, Conv3dPrecision::fp16);
    EXPECT_TRUE(train_from(2, Conv3dPrecision::fp16) == rounded);
    EXPECT_FALSE(rounded == exact);
  });
}

TEST_P(QuicksilverTrainingOn, MeasuresAgainstPredictingZero) {
  Quicksilver network(small_network());
  network.to(device());
  fill_weights(network, 0.0);
  QuicksilverTrainingOptions options = small_training();
  options.learning_rate = 1e-30;  // leaves the weights as they are
  options.validation_steps = 1;
  QuicksilverTraining training(network, small_pairs(), small_pairs(), options);
  go_on(training, 1);
  EXPECT_NEAR(training.best().validation.ratio, 1.0, 1e-6);
  const Batch all =
      quicksilver_patches(small_pairs(), quicksilver_places(small_pairs(), options.patches.grid), kPatch);
  double sum = 0.0;
  for (const double value : all.at("momentum").to_vector<double>()) sum += std::abs(value);
  EXPECT_NEAR(training.best().validation.mean, sum / static_cast<double>(all.at("momentum").numel()), 1e-5);
}

TEST_P(QuicksilverTrainingOn, TheLossOfVelocitiesIsThatOfSmoothedMomenta) {
  Quicksilver network(small_network());
  network.to(device());
  fill_weights(network, 0.0);
  QuicksilverTrainingOptions options = small_training();
  options.learning_rate = 1e-30;
  options.validation_steps = 1;
  options.loss = {0.25, {0.1, 0.05, 0.01, 1}};
  QuicksilverTraining training(network, small_pairs(), small_pairs(), options);
  go_on(training, 1);
  const Tensor momentum =
      quicksilver_patches(small_pairs(), quicksilver_places(small_pairs(), options.patches.grid), kPatch)
          .at("momentum");
  Tensor velocity = Tensor::empty(momentum.shape());
  green_operator_on(Device::cpu()).smooth(momentum, options.loss.fluid, FftPadding::fast, velocity);
  double sizes = 0.0, squares = 0.0;
  for (const double value : momentum.to_vector<double>()) sizes += std::abs(value);
  for (const double value : velocity.to_vector<double>()) squares += value * value;
  const auto numbers = static_cast<double>(momentum.numel());
  EXPECT_NEAR(training.best().validation.mean, (sizes + 0.25 * squares) / numbers, 1e-5);
  EXPECT_GT(squares, sizes) << "the loss of velocities would not be seen";
  EXPECT_NEAR(training.best().validation.ratio, 1.0, 1e-6);
}

TEST(QuicksilverTraining, LeavesOutBatchesWhoseGradientsOverflowInFp16) {
  Quicksilver network(small_network(0.0, 3, Conv3dPrecision::fp16));
  QuicksilverTraining training(network, small_pairs(), std::nullopt, small_training());
  SafeTensors state = training.state();
  state.tensors.at("scaler.scale").fill(0x1p20);  // 16 times what fp16 holds of a gradient of 1
  training.load_state(state);
  const auto weights = [&] { return network.parameters().front().value().clone(); };
  const auto scale = [&] { return training.state().tensors.at("scaler.scale").item(); };
  const Tensor before = weights();
  for (int left_out = 0; left_out < 4; ++left_out) training.advance();
  EXPECT_TRUE(same_values(weights(), before));
  EXPECT_EQ(scale(), 0x1p16);
  while (scale() == 0x1p16 && training.step() < 10) training.advance();
  EXPECT_LT(scale(), 0x1p16) << "65536 is infinite in fp16";
  training.advance();
  EXPECT_FALSE(same_values(weights(), before));
  state.tensors.erase("scaler.scale");
  EXPECT_THROW(training.load_state(state), InputError);
}

TEST(QuicksilverTraining, StopsWhenItNoLongerImproves) {
  Quicksilver network(small_network());
  QuicksilverTrainingOptions options = small_training();
  options.learning_rate = 1e-30;
  options.validation_steps = 2;
  options.patience = 3;
  QuicksilverTraining training(network, small_pairs(), small_pairs(), options);
  while (!training.finished()) go_on(training, training.step() + 1);
  EXPECT_TRUE(training.out_of_patience());
  EXPECT_EQ(training.step(), 8);
  EXPECT_EQ(training.best().step, 2);
}

TEST(QuicksilverTraining, AnInterruptedValidationIsRepeated) {
  Quicksilver network(small_network());
  QuicksilverTrainingOptions options = small_training();
  options.validation_steps = 1;
  options.moving_average = 0.5;
  QuicksilverTraining training(network, small_pairs(), small_pairs(), options);
  training.advance();
  const std::string before = bytes_of(training);
  EXPECT_FALSE(training.validate([] { return false; }));
  EXPECT_TRUE(training.validation_due());
  EXPECT_EQ(bytes_of(training), before);
}

TEST(QuicksilverTraining, SaysThatItDiverged) {
  Quicksilver network(small_network());
  fill_weights(network, std::numeric_limits<double>::quiet_NaN());
  QuicksilverTraining training(network, small_pairs(), std::nullopt, small_training());
  EXPECT_THROW(training.advance(), InputError);
}

TEST(QuicksilverTraining, RefusesStatesAndVolumesThatDoNotFit) {
  Quicksilver network(small_network());
  QuicksilverTraining training(network, small_pairs(), std::nullopt, small_training());
  SafeTensors state = training.state();
  state.tensors.erase("progress");
  EXPECT_THROW(training.load_state(state), InputError);
  const Tensor image = random_tensor({1, 1, 6, 6, 6}, 5);
  const auto patches_of = [&](const Batch& volumes) {
    return QuicksilverPatches(VolumeSet({volumes}), small_training().patches);
  };
  EXPECT_THROW(patches_of({{"moving", image}, {"target", image}}), Error);
  EXPECT_THROW(patches_of({{"moving", image}, {"target", image}, {"momentum", image}}), Error);
  const Tensor nothing = Tensor::zeros(image.shape());
  EXPECT_THROW(
      patches_of({{"moving", nothing}, {"target", nothing}, {"momentum", Tensor::zeros({1, 3, 6, 6, 6})}}),
      InputError);
}

TEST(QuicksilverPatches, MakesAnyBatchAtAnyTime) {
  const QuicksilverPatches patches(small_pairs(), rich_training().patches);
  const Batch late = patches(5);
  for (std::int64_t k = 0; k < 5; ++k) EXPECT_FALSE(same_values(patches(k).at("images"), late.at("images")));
  for (const char* name : {"images", "momentum"})
    EXPECT_TRUE(same_values(patches(5).at(name), late.at(name)));
}

TEST(QuicksilverPatches, VaryIntensitiesOnlyWhereThereIsSignal) {
  QuicksilverPatchOptions plain = small_training().patches;
  QuicksilverPatchOptions varied = plain;
  varied.intensity = 0.3;
  const Batch before = QuicksilverPatches(small_pairs(4.0), plain)(0);
  const Batch after = QuicksilverPatches(small_pairs(4.0), varied)(0);
  EXPECT_TRUE(same_values(before.at("momentum"), after.at("momentum")));
  const std::vector<float> x = before.at("images").to_vector<float>(),
                           y = after.at("images").to_vector<float>();
  std::int64_t background = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    background += x[i] == 0.0f;
    EXPECT_EQ(x[i] == 0.0f, y[i] == 0.0f);
    EXPECT_NEAR(x[i], y[i], 0.25);  // x^0.7 - x is at most 0.13, and the noise has the deviation 0.015
  }
  EXPECT_GT(background, 0);
}

TEST(QuicksilverPatches, MirroredPairsHaveMirroredGeodesics) {
  Tensor momentum = random_tensor({1, 3, 8, 9, 10}, 4, -0.01, 0.01);
  const auto shot = [](const Tensor& from) {
    ShootingOptions shooting;
    shooting.time_steps = 2;
    return on_threads(1, [&] { return shoot(Variable(from), shooting).phi.value(); });
  };
  Tensor expected = shot(momentum);
  mirror_left_right(expected, 0);
  const Tensor original = momentum.clone();
  mirror_left_right(momentum, 0);
  EXPECT_FALSE(same_values(momentum, original));
  EXPECT_LT(relative_error(shot(momentum), expected), 1e-5);
  mirror_left_right(momentum, 0);
  EXPECT_TRUE(same_values(momentum, original));
}

TEST(QuicksilverPatches, MirrorsHalfOfThePatchesWhole) {
  QuicksilverPatchOptions plain = small_training().patches;
  plain.batch_size = 64;
  QuicksilverPatchOptions mirrored = plain;
  mirrored.mirror = true;
  Batch before = QuicksilverPatches(small_pairs(), plain)(0);
  const Batch after = QuicksilverPatches(small_pairs(), mirrored)(0);
  int turned = 0;
  for (std::int64_t n = 0; n < 64; ++n) {
    const bool same = same_values(before.at("images").rows(n, 1), after.at("images").rows(n, 1));
    turned += same ? 0 : 1;
    for (auto& [name, tensor] : before) {
      if (!same) mirror_left_right(tensor, n);
      EXPECT_TRUE(same_values(tensor.rows(n, 1), after.at(name).rows(n, 1))) << name << " " << n;
    }
  }
  EXPECT_GT(turned, 16);
  EXPECT_LT(turned, 48);
}

TEST_P(QuicksilverTrainingOn, TheCorrectionLearnsWhatThePredictionLacks) {
  Quicksilver network(small_network());
  network.to(device());
  const Batch pair{{"moving", random_tensor({1, 1, 8, 9, 10}, 1, 0.1, 1.0).to(device())},
                   {"target", random_tensor({1, 1, 8, 9, 10}, 2, 0.1, 1.0).to(device())},
                   {"momentum", random_tensor({1, 3, 8, 9, 10}, 3).to(device())}};
  const ShootingOptions shooting;
  const Batch lesson = correction_lesson(network, pair, shooting);
  const Tensor predicted = predict_momentum(network, pair.at("moving"), pair.at("target"));
  EXPECT_LT(
      relative_error((Variable(lesson.at("momentum")) + Variable(predicted)).value(), pair.at("momentum")),
      1e-6);
  const Tensor phi = shoot(Variable(predicted), shooting).phi.value();
  EXPECT_GT(relative_error(phi, Tensor::zeros(phi.shape())), 1e-3);
  EXPECT_TRUE(same_values(lesson.at("target"),
                          warp(Variable(pair.at("target")), Variable(phi), Boundary::border).value()));
  EXPECT_TRUE(same_values(lesson.at("moving"), pair.at("moving")));
}

}  // namespace
}  // namespace cinnabar::testing
