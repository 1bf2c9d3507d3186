// The network of VoxelMorph: shapes, its start, the gradient of its loss, what it learns, and its files.

#include "models/voxelmorph.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "autograd/elementwise.hpp"
#include "autograd/gaussian_smooth.hpp"
#include "autograd/gradcheck.hpp"
#include "autograd/reduce.hpp"
#include "autograd/warp.hpp"
#include "models/quicksilver_file.hpp"
#include "models/voxelmorph_file.hpp"
#include "models/voxelmorph_training.hpp"
#include "tests/devices.hpp"
#include "tests/scratch_folder.hpp"
#include "tests/tensors.hpp"
#include "tests/threads.hpp"
#include "tests/training_steps.hpp"

namespace cinnabar::testing {
namespace {

const VoxelmorphOptions kTiny{.features = 2, .levels = 3, .squarings = 3, .seed = 5};

Tensor smooth_noise(const Shape& shape, std::uint64_t seed, double blur) {
  return gaussian_smooth(random_tensor(shape, seed, -1.0, 1.0), {blur, blur, blur});
}

/// A smooth image of values about 0 to 1.
Tensor picture(const Shape& spatial, std::uint64_t seed) {
  const NoGrad quiet;
  const Shape shape{1, 1, spatial[0], spatial[1], spatial[2]};
  return (0.5 + 3.0 * Variable(smooth_noise(shape, seed, 1.5))).value();
}

double largest(const Variable& x) {
  const NoGrad quiet;
  return amax(abs(x)).value().item();
}

TEST(Voxelmorph, TakesExtentsOfAnySize) {
  const NoGrad quiet;
  for (const bool half : {true, false}) {
    VoxelmorphOptions options = kTiny;
    options.half_resolution = half;
    Voxelmorph network(options);
    EXPECT_EQ(network.parameter_count(), voxelmorph_weights(options));
    for (const Shape& spatial : {Shape{5, 7, 9}, Shape{8, 6, 11}, Shape{1, 13, 2}}) {
      const Variable moving(picture(spatial, 1)), fixed(picture(spatial, 2));
      const Variable velocity = network.velocity(moving, fixed);
      const auto extent = [&](int axis) { return half ? (spatial[axis] + 1) / 2 : spatial[axis]; };
      EXPECT_EQ(velocity.shape(), (Shape{1, 3, extent(0), extent(1), extent(2)}));
      const Flow flow = velocity_flow(velocity, spatial, 3);
      EXPECT_EQ(flow.psi.shape(), (Shape{1, 3, spatial[0], spatial[1], spatial[2]}));
      EXPECT_LT(largest(flow.psi), 0.02) << "it does not start near the identity";
    }
  }
  for (const std::int64_t convolutions : {1, 3}) {
    const VoxelmorphOptions options{.features = 3, .levels = 4, .convolutions = convolutions};
    EXPECT_EQ(Voxelmorph(options).parameter_count(), voxelmorph_weights(options));
  }
  Voxelmorph network(kTiny);
  EXPECT_THROW(
      network.velocity(Variable(Tensor::zeros({1, 1, 4, 4, 4})), Variable(Tensor::zeros({1, 1, 4, 4, 5}))),
      Error);
}

TEST(Voxelmorph, AConstantVelocityIsATranslationOnTheFineGrid) {
  const NoGrad quiet;
  const Variable velocity(Tensor::full({1, 3, 4, 4, 4}, 0.75));
  for (const Shape& spatial : {Shape{7, 8, 7}, Shape{8, 8, 8}}) {
    const Variable u = velocity_displacement(velocity, spatial, 7);
    EXPECT_NEAR(largest(u + (-1.5)), 0.0, 1e-5);
    EXPECT_NEAR(largest(velocity_at(velocity, spatial) + (-1.5)), 0.0, 1e-6);
  }
  EXPECT_NEAR(largest(velocity_displacement(velocity, {4, 4, 4}, 7) + (-0.75)), 0.0, 1e-5);
  EXPECT_THROW(velocity_displacement(velocity, {9, 8, 8}, 7), Error);
}

TEST(Voxelmorph, ItsFlowsAreInverses) {
  const NoGrad quiet;
  const Shape spatial{24, 26, 28};
  for (const Shape& grid : {Shape{1, 3, 24, 26, 28}, Shape{1, 3, 12, 13, 14}}) {
    const Variable velocity = 8.0 * Variable(smooth_noise(grid, 3, 3.0));
    const Flow flow = velocity_flow(velocity, spatial, 7);
    EXPECT_GT(largest(flow.psi), 1.0) << "the map is too small to tell";
    EXPECT_GT(smallest_jacobian(flow), 0.0);
    // Away from the faces, where points come from outside.
    const Variable there = flow.psi + warp(flow.phi, flow.psi, Boundary::border);
    const double rms = std::sqrt(mean(square(there)).value().item());
    EXPECT_LT(rms, 0.05 * std::sqrt(mean(square(flow.psi)).value().item()));
  }
}

TEST(Voxelmorph, TheSymmetricOneHasTheInverseForExchangedImages) {
  const NoGrad quiet;
  VoxelmorphOptions options = kTiny;
  options.symmetric = true;
  Voxelmorph network(options);
  const Variable a(picture({7, 8, 9}, 1)), b(picture({7, 8, 9}, 2));
  const Variable there = network.velocity(a, b), back = network.velocity(b, a);
  EXPECT_GT(largest(there), 0.0);
  EXPECT_EQ(largest(there + back), 0.0);
}

TEST(Voxelmorph, GradientOfTheLoss) {
  const Shape grid{1, 3, 3, 3, 4};
  const Tensor moving = picture({5, 6, 7}, 1).to(DType::f64), fixed = picture({5, 6, 7}, 2).to(DType::f64);
  // Displacements between 0.2 and 0.7 voxels, away from the faces of cells.
  const Tensor velocity = random_tensor(grid, 3, 0.15, 0.3, DType::f64);
  for (const Similarity similarity : {Similarity::ssd, Similarity::ncc, Similarity::lncc}) {
    const VoxelmorphLoss loss{similarity, 2, 0.7};
    const auto function = [&](const std::vector<Variable>& v) {
      return voxelmorph_loss(v[1], Variable(fixed), v[0], 2, loss);
    };
    const GradcheckResult result = gradcheck(function, {velocity, moving});
    EXPECT_TRUE(result) << name_of(similarity) << ": " << result.message;
  }
}

TEST(Voxelmorph, GradientOfItsWeights) {
  Voxelmorph network(kTiny);
  network.to(DType::f64);
  const Variable moving(picture({5, 6, 7}, 1).to(DType::f64)), fixed(picture({5, 6, 7}, 2).to(DType::f64));
  std::vector<Variable> parameters = network.parameters();
  // Velocities of about a voxel, so that the start's near zero does not hide anything.
  {
    const NoGrad quiet;
    Variable& weight = parameters[parameters.size() - 2];
    weight.set_value((300.0 * weight).value());
    parameters.back().set_value(Tensor::full(parameters.back().shape(), 0.2, DType::f64));
  }
  const auto value = [&] {
    return voxelmorph_loss(moving, fixed, network.velocity(moving, fixed), 3, VoxelmorphLoss{});
  };
  value().backward();
  constexpr double kStep = 1e-6;
  int tried = 0;
  for (Variable& parameter : parameters) {
    const Tensor gradient = parameter.grad();
    const Tensor before = parameter.value();
    for (std::int64_t i = 0; i < before.numel(); i += 1 + before.numel() / 3) {
      const auto at = [&](double change) {
        const NoGrad quiet;
        Tensor moved = before.clone();
        moved.data<double>()[i] += change;
        parameter.set_value(moved);
        return value().value().item();
      };
      const double numeric = (at(kStep) - at(-kStep)) / (2.0 * kStep);
      EXPECT_NEAR(gradient.data<double>()[i], numeric, 1e-6 + 2e-3 * std::abs(numeric)) << tried;
      ++tried;
    }
    parameter.set_value(before);
  }
  EXPECT_GT(tried, 20);
}

/// Pairs of a picture and the picture shifted by two voxels along x.
VolumeSet shifted_pairs(std::uint64_t first_seed, int count) {
  const NoGrad quiet;
  std::vector<Batch> stacks;
  for (int i = 0; i < count; ++i) {
    const Shape spatial{12, 13 + i % 2, 16};
    const Tensor moving = picture(spatial, first_seed + static_cast<std::uint64_t>(i));
    Tensor shift = Tensor::zeros({1, 3, spatial[0], spatial[1], spatial[2]});
    std::fill_n(shift.data<float>(), shift.numel() / 3, 2.0f);
    stacks.push_back(
        {{"moving", moving}, {"target", warp(Variable(moving), Variable(shift), Boundary::border).value()}});
  }
  return VolumeSet(std::move(stacks));
}

VoxelmorphTrainingOptions quick_training() {
  VoxelmorphTrainingOptions options;
  options.learning_rate = 1e-2;
  options.epochs = 60;
  options.loss = {Similarity::ssd, 2, 0.001};
  options.validation_steps = 40;
  options.schedule = RateSchedule::cosine;
  return options;
}

TEST(VoxelmorphTraining, RecoversAShiftOfImagesItNeverSaw) {
  Voxelmorph network({.features = 4, .levels = 3, .seed = 1});
  VoxelmorphTraining training(network, shifted_pairs(1, 4), shifted_pairs(50, 2), quick_training());
  on_threads(1, [&] { go_on(training, training.total_steps()); });
  EXPECT_TRUE(training.finished());
  EXPECT_GT(training.curve().front().training.ratio, 0.8);
  EXPECT_LT(training.best().validation.ratio, 0.35);
  const NoGrad quiet;
  const VolumeSet unseen = shifted_pairs(60, 1);
  const Batch pair = unseen.gather(Tensor::from<std::int32_t>({0, 0, 0, 0}, {1, 4}), unseen.spatial(0));
  const Variable moving(pair.at("moving")), fixed(pair.at("target"));
  const Flow flow = velocity_flow(network.velocity(moving, fixed), unseen.spatial(0), 7);
  const std::vector<float> u = flow.psi.value().to_vector<float>();
  double along_x = 0.0, across = 0.0;
  for (std::size_t i = 0; i < u.size() / 3; ++i) {
    along_x += u[i];
    across += std::abs(u[i + u.size() / 3]);
  }
  const double voxels = static_cast<double>(u.size()) / 3.0;
  EXPECT_NEAR(along_x / voxels, 2.0, 0.7);
  EXPECT_LT(across / voxels, 0.7);
}

TEST(VoxelmorphTraining, SwappedPairsMoveTheOtherWay) {
  VoxelmorphTrainingOptions options = quick_training();
  options.draws.swap = options.draws.mirror = true;
  options.epochs = 4;
  options.batch_size = 2;
  Voxelmorph network(kTiny);
  VoxelmorphTraining training(network, shifted_pairs(1, 3), std::nullopt, options);
  go_on(training, training.total_steps());
  EXPECT_EQ(training.step(), 6);
  EXPECT_TRUE(std::isfinite(training.curve().back().training.mean));
}

class VoxelmorphTrainingOn : public OnDevice {};
CINNABAR_ON_EACH_DEVICE(VoxelmorphTrainingOn);

TEST_P(VoxelmorphTrainingOn, GoesOnWithTheSameBits) {
  VoxelmorphTrainingOptions options = quick_training();
  options.draws.swap = options.draws.mirror = true;
  options.moving_average = 0.9;
  options.validation_steps = 2;
  options.epochs = 2;
  Voxelmorph network(kTiny);
  network.to(device());
  VoxelmorphTraining whole(network, shifted_pairs(1, 3), shifted_pairs(9, 1), options);
  go_on(whole, 3);
  const SafeTensors state = whole.state();
  VoxelmorphOptions others = kTiny;
  others.seed = 77;
  Voxelmorph other(others);
  other.to(device());
  VoxelmorphTraining rest(other, shifted_pairs(1, 3), shifted_pairs(9, 1), options);
  rest.load_state(state);
  go_on(whole, whole.total_steps());
  go_on(rest, rest.total_steps());
  EXPECT_TRUE(bytes_of(whole) == bytes_of(rest));
}

TEST(VoxelmorphFile, KeepsEverything) {
  const ScratchFolder folder;
  VoxelmorphOptions options = kTiny;
  options.symmetric = true;
  options.half_resolution = false;
  const Voxelmorph network(options);
  VoxelmorphDescription description;
  description.loss = {Similarity::ncc, 3, 0.25};
  description.spacing_mm = 4.0;
  description.head_voxels = 1000.0;
  description.notes = {{"command", "cinnabar train voxelmorph"}};
  save_voxelmorph(folder / "net.safetensors", network, description);
  EXPECT_EQ(folder.count(), 1);
  EXPECT_TRUE(is_voxelmorph_file(folder / "net.safetensors"));
  const LoadedVoxelmorph loaded = load_voxelmorph(folder / "net.safetensors");
  EXPECT_EQ(loaded.description.network.squarings, 3);
  EXPECT_TRUE(loaded.description.network.symmetric);
  EXPECT_FALSE(loaded.description.network.half_resolution);
  EXPECT_EQ(loaded.description.loss.similarity, Similarity::ncc);
  EXPECT_EQ(loaded.description.loss.smoothness, 0.25);
  EXPECT_EQ(loaded.description.head_voxels, 1000.0);
  EXPECT_EQ(loaded.description.notes, description.notes);
  for (const auto& [name, tensor] : network.state().tensors) {
    EXPECT_TRUE(same_values(loaded.network->state().tensors.at(name), tensor)) << name;
  }
}

TEST(VoxelmorphFile, RefusesWhatIsDamagedOrHostile) {
  const ScratchFolder folder;
  const auto file = folder / "net.safetensors";
  save_voxelmorph(file, Voxelmorph(kTiny), {});
  const std::string whole = read_bytes(file);
  const SafeTensors good = load_safetensors(file);
  const auto expect_refused = [&](const std::string& reason) {
    try {
      load_voxelmorph(file);
      ADD_FAILURE() << "accepted; should say: " << reason;
    } catch (const InputError& error) {
      const std::string message = error.what();
      EXPECT_NE(message.find(reason), std::string::npos) << message;
      EXPECT_NE(message.find("net.safetensors"), std::string::npos) << message;
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    }
  };
  for (std::size_t length = 0; length < whole.size(); length += 1 + whole.size() / 50) {
    write_bytes(file, whole.substr(0, length));
    expect_refused("net.safetensors");
    EXPECT_FALSE(is_voxelmorph_file(file));
  }
  const auto with_description = [&](const char* from, const char* to) {
    SafeTensors changed = good;
    std::string& text = changed.metadata.at("voxelmorph");
    const std::size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << text;
    text.replace(at, std::string(from).size(), to);
    save_safetensors(file, changed);
  };
  with_description("\"features\":2", "\"features\":4096");
  expect_refused("weights where its description asks for");
  with_description("\"features\":2", "\"features\":1e9");
  expect_refused("'features' is");
  with_description("\"levels\":3", "\"levels\":null");
  expect_refused("'levels' is null");
  with_description("\"levels\":3", "\"layers\":3");
  expect_refused("'network' lacks 'levels'");
  with_description("\"role\":\"voxelmorph\"", "\"role\":\"prediction\"");
  expect_refused("'role' is \"prediction\"");
  with_description("\"lncc\"", "\"mi\\nnd\"");
  expect_refused("not ssd, ncc or lncc");
  with_description("\"symmetric\":false", "\"symmetric\":0");
  expect_refused("not true or false");
  with_description("\"format\":1", "\"format\":2");
  expect_refused("this version reads 1");
  with_description("\"notes\":{}", "\"notes\":[[[[[[]]]]]]");
  expect_refused("nested too deeply");
  SafeTensors changed = good;
  changed.tensors.begin()->second = Tensor::full(changed.tensors.begin()->second.shape(), NAN);
  save_safetensors(file, changed);
  expect_refused("not finite");
  save_quicksilver(file, Quicksilver({.features = 1, .patch = {5, 5, 5}}), {});
  expect_refused("not a network of VoxelMorph");
  EXPECT_FALSE(is_voxelmorph_file(file));
  write_bytes(file, whole);
  EXPECT_THROW(load_quicksilver(file), InputError);
  Voxelmorph broken(kTiny);
  broken.parameters().front().set_value(Tensor::full(broken.parameters().front().shape(), NAN));
  EXPECT_THROW(save_voxelmorph(folder / "broken.safetensors", broken, {}), InputError);
  EXPECT_EQ(folder.count(), 1);
}

}  // namespace
}  // namespace cinnabar::testing
