#include "models/quicksilver_file.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/scratch_folder.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

using nlohmann::json;

QuicksilverDescription example() {
  QuicksilverDescription description;
  description.network = {.features = 2, .patch = {7, 6, 5}, .dropout = 0.25, .seed = 3};
  description.role = QuicksilverRole::correction;
  description.momenta.fluid = {0.02, 0.03, 0.004, 2};
  description.momenta.sigma = 0.1;
  description.momenta.time_steps = 12;
  description.momenta.inverse_iterations = 9;
  description.momenta.spacing_mm = 2.5;
  description.momenta.head_voxels = 250'000;
  description.notes = {{"recipe", "two \"epochs\"\nof ten"}, {"empty", ""}};
  return description;
}

class QuicksilverFile : public ::testing::Test {
 protected:
  void save(DType storage = DType::f32) { save_quicksilver(path(), network_, description_, storage); }
  std::filesystem::path path() const { return folder_ / "net.safetensors"; }

  /// Saves the example after a change of its content, and expects it refused in one line that names the file.
  template <class Change>
  void expect_refused(const Change& change, const std::string& reason) {
    save();
    SafeTensors content = load_safetensors(path());
    change(content);
    save_safetensors(path(), content);
    try {
      load_quicksilver(path());
      ADD_FAILURE() << "accepted; expected: " << reason;
    } catch (const InputError& error) {
      const std::string text = error.what();
      EXPECT_NE(text.find(path().string()), std::string::npos) << text;
      EXPECT_NE(text.find(reason), std::string::npos) << text;
      EXPECT_EQ(text.find('\n'), std::string::npos) << text;
      EXPECT_LT(text.size(), 1000u);
    }
  }
  template <class Change>
  void expect_description_refused(const Change& change, const std::string& reason) {
    expect_refused(
        [&](SafeTensors& content) {
          std::string& text = content.metadata.at("quicksilver");
          json object = json::parse(text);
          change(object);
          text = object.dump();
        },
        reason);
  }

  ScratchFolder folder_;
  QuicksilverDescription description_ = example();
  Quicksilver network_{description_.network};
};

TEST_F(QuicksilverFile, EverythingSurvivesTheRoundTrip) {
  save();
  const LoadedQuicksilver loaded = load_quicksilver(path(), 11);
  const QuicksilverDescription expected = example();
  EXPECT_EQ(loaded.network->options().features, 2);
  EXPECT_EQ(loaded.network->options().patch, (Shape{7, 6, 5}));
  EXPECT_EQ(loaded.network->options().dropout, 0.25);
  EXPECT_EQ(loaded.network->options().seed, 11u);
  EXPECT_EQ(loaded.description.role, expected.role);
  EXPECT_EQ(to_json(loaded.description.momenta), to_json(expected.momenta));
  EXPECT_EQ(loaded.description.notes, expected.notes);
  const SafeTensors before = network_.state(), after = loaded.network->state();
  ASSERT_EQ(before.tensors.size(), after.tensors.size());
  for (const auto& [name, tensor] : before.tensors) {
    EXPECT_TRUE(same_values(after.tensors.at(name), tensor)) << name;
  }
  EXPECT_EQ(folder_.count(), 1) << "a temporary file was left";
}

TEST_F(QuicksilverFile, KeepsTheEnergyOfTheMomenta) {
  save();
  EXPECT_EQ(load_quicksilver(path()).description.momenta.similarity, Similarity::ssd);
  description_.momenta.similarity = Similarity::lncc;
  description_.momenta.lncc_radius = 3;
  save();
  const MatchingOptions matching = load_quicksilver(path()).description.momenta.matching();
  EXPECT_EQ(matching.similarity, Similarity::lncc);
  EXPECT_EQ(matching.lncc_radius, 3);
  EXPECT_EQ(matching.sigma, 0.1);
  EXPECT_EQ(matching.shooting.time_steps, 12);
  expect_description_refused([](json& o) { o["momenta"]["similarity"] = "mi"; }, "ssd, ncc or lncc");
  expect_description_refused([](json& o) { o["momenta"]["similarity"] = 3; }, "'similarity'");
  expect_description_refused([](json& o) { o["momenta"]["lncc_radius"] = 99; }, "'lncc_radius'");
  expect_description_refused([](json& o) { o["momenta"].erase("lncc_radius"); }, "without 'lncc_radius'");
}

TEST_F(QuicksilverFile, SmallStorageLoadsAsRoundedF32) {
  for (const DType storage : {DType::f16, DType::bf16}) {
    save(storage);
    EXPECT_EQ(load_safetensors(path()).tensors.begin()->second.dtype(), storage);
    const SafeTensors loaded = load_quicksilver(path()).network->state();
    for (const auto& [name, tensor] : network_.state().tensors) {
      EXPECT_EQ(loaded.tensors.at(name).dtype(), DType::f32);
      EXPECT_TRUE(same_values(loaded.tensors.at(name), tensor.to(storage).to(DType::f32))) << name;
    }
  }
}

TEST_F(QuicksilverFile, RefusesToWriteWhatTheStorageCannotHold) {
  Variable weight = network_.named_parameters().front().variable;
  weight.set_value(Tensor::full(weight.shape(), 1e5));
  EXPECT_THROW(save(DType::f16), InputError);
  EXPECT_THROW(save(DType::f64), Error);
  EXPECT_EQ(folder_.count(), 0);
  save(DType::bf16);
}

TEST_F(QuicksilverFile, WithoutADescriptionTheShapesSpeak) {
  const Quicksilver plain({.features = 3});
  plain.save(path());
  const LoadedQuicksilver loaded = load_quicksilver(path());
  EXPECT_EQ(loaded.description.network.features, 3);
  EXPECT_EQ(loaded.network->options().patch, (Shape{15, 15, 15}));
  EXPECT_EQ(loaded.description.role, QuicksilverRole::prediction);
  EXPECT_EQ(loaded.description.momenta.fluid.gamma, 0.001);
  EXPECT_TRUE(loaded.description.notes.empty());
}

TEST_F(QuicksilverFile, RefusesOtherTensors) {
  EXPECT_THROW(load_quicksilver(path()), InputError) << "no such file";
  const std::string first = "encoder_m_1.conv_input.weight";
  expect_refused([&](SafeTensors& c) { c.tensors.erase(first); }, "no tensor " + first);
  expect_refused([&](SafeTensors& c) { c.tensors.erase("decoder_z_2.prelu4.weight"); },
                 "missing decoder_z_2.prelu4.weight");
  expect_refused([&](SafeTensors& c) { c.tensors["more"] = Tensor::zeros({1}); }, "unexpected more");
  expect_refused(
      [&](SafeTensors& c) {
        c.tensors[first] = Tensor::zeros({1 << 20, 1, 3, 3, 3}, DType::u8);
      },
      "other shapes");
  expect_refused(
      [&](SafeTensors& c) {
        c.tensors[first] = Tensor::zeros({2, 1, 3, 3, 3}, DType::i32);
      },
      "should be f32");
  expect_refused([&](SafeTensors& c) { c.tensors[first].fill(std::nan("")); }, "not finite");
  expect_refused([&](SafeTensors& c) { c.tensors.clear(); }, "no tensor");
  // Patches of even extents have other un-pooling kernels.
  expect_refused([&](SafeTensors& c) { c.metadata.clear(); }, "conv_unpooling");
}

TEST_F(QuicksilverFile, RefusesDamagedDescriptions) {
  const auto text = [](const std::string& value) {
    return [=](SafeTensors& content) { content.metadata["quicksilver"] = value; };
  };
  expect_refused(text(""), "not valid JSON");
  expect_refused(text("{"), "not valid JSON");
  expect_refused(text("[1]"), "not an object");
  expect_refused(text(std::string(1000, '[')), "nested too deeply");
  expect_refused(text(std::string((1 << 20) + 1, ' ')), "characters");
  expect_description_refused([](json& d) { d["format"] = 2; }, "format 2");
  expect_description_refused([](json& d) { d.erase("role"); }, "lacks 'role'");
  expect_description_refused([](json& d) { d["role"] = "oracle"; }, "\"oracle\"");
  expect_description_refused([](json& d) { d["more"] = 1; }, "\"more\"");
  expect_description_refused([](json& d) { d["notes"]["n"] = 1; }, "note");
  expect_description_refused([](json& d) { d["network"]["features"] = 4; }, "4 features");
  expect_description_refused([](json& d) { d["network"]["features"] = 1e300; }, "whole number");
  expect_description_refused([](json& d) { d["network"]["features"] = -1; }, "whole number");
  expect_description_refused([](json& d) { d["network"]["patch"] = {15, 15}; }, "three extents");
  expect_description_refused([](json& d) { d["network"]["patch"][1] = 2; }, "'patch' is 2");
  expect_description_refused([](json& d) { d["network"]["patch"][1] = json::array(); }, "'patch' is array");
  expect_description_refused([](json& d) { d["network"]["dropout"] = 1.0; }, "'dropout'");
  expect_description_refused([](json& d) { d["momenta"]["alpha"] = "0.01"; }, "'alpha'");
  expect_description_refused([](json& d) { d["momenta"]["alpha"] = nullptr; }, "'alpha'");
  expect_description_refused([](json& d) { d["momenta"]["power"] = 5; }, "'power'");
  expect_description_refused([](json& d) { d["momenta"]["time_steps"] = 0; }, "'time_steps'");
  expect_description_refused([](json& d) { d["momenta"]["sigma"] = -1.0; }, "'sigma'");
  expect_description_refused([](json& d) { d["momenta"]["sigma"] = std::string(5000, 'x'); }, "'sigma'");
}

}  // namespace
}  // namespace cinnabar::testing
