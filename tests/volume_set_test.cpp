#include "data/volume_set.hpp"

#include <gtest/gtest.h>

#include <functional>

#include "engine/safetensors.hpp"
#include "tests/devices.hpp"
#include "tests/scratch_folder.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

/// A stack of images with one and three channels and labels.
Batch stack_of(std::int64_t volumes, const Shape& spatial, std::uint64_t seed) {
  const auto shape = [&](std::int64_t channels) {
    return Shape{volumes, channels, spatial[0], spatial[1], spatial[2]};
  };
  return {{"labels", random_tensor(shape(1), seed, 0, 9).to(DType::u8)},
          {"momentum", random_tensor(shape(3), seed + 1)},
          {"moving", random_tensor(shape(1), seed + 2)}};
}

const std::vector<Batch>& two_stacks() {
  static const std::vector<Batch> stacks{stack_of(2, {5, 6, 7}, 1), stack_of(1, {4, 8, 5}, 11)};
  return stacks;
}

Tensor some_starts() {
  return Tensor::from<std::int32_t>({0, 1, 2, 3, 2, 0, 0, 0, 2, 1, 4, 2, 1, -1, 0, 5}, {4, 4});
}

void expect_equal(const Batch& a, const Batch& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) {
    EXPECT_EQ(tensor.dtype(), b.at(name).dtype()) << name;
    EXPECT_TRUE(same_values(tensor, b.at(name))) << name;
  }
}

/// Expects an InputError of one line that contains all the given texts.
void expect_refused(const std::function<void()>& run, const std::vector<std::string>& texts) {
  try {
    run();
    FAIL() << "accepted; expected: " << texts.front();
  } catch (const InputError& error) {
    const std::string message = error.what();
    for (const std::string& text : texts) EXPECT_NE(message.find(text), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

/// Writes stacks as files a.safetensors, b.safetensors, ...
std::vector<std::filesystem::path> save(const ScratchFolder& folder, const std::vector<Batch>& stacks) {
  std::vector<std::filesystem::path> files;
  for (const Batch& stack : stacks) {
    const char letter = static_cast<char>('a' + files.size());
    files.push_back(folder / (std::string(1, letter) + ".safetensors"));
    save_safetensors(files.back(), {stack, {}});
  }
  return files;
}

TEST(VolumeSet, NumbersSubjectsThroughAllStacks) {
  const VolumeSet volumes(two_stacks());
  EXPECT_EQ(volumes.size(), 3);
  EXPECT_EQ(volumes.spatial(1), (Shape{5, 6, 7}));
  EXPECT_EQ(volumes.spatial(2), (Shape{4, 8, 5}));
  EXPECT_EQ(volumes.names(), (std::vector<std::string>{"labels", "momentum", "moving"}));
  EXPECT_THROW(volumes.spatial(3), Error);
  EXPECT_THROW(volumes.spatial(-1), Error);
}

TEST(VolumeSet, CutsEveryImageAtTheSamePlace) {
  const Batch batch = VolumeSet(two_stacks()).gather(some_starts(), {2, 3, 2});
  EXPECT_EQ(batch.at("momentum").shape(), (Shape{4, 3, 2, 3, 2}));
  EXPECT_EQ(batch.at("labels").dtype(), DType::u8);
  const auto value = [](const Tensor& tensor, std::int64_t at) {
    return tensor.to_vector<float>()[static_cast<std::size_t>(at)];
  };
  // Patch 2 starts at (1, 4, 2) of the second stack; its last voxel is (2, 6, 3).
  const std::int64_t in_volume = (2 * 8 + 6) * 5 + 3;
  EXPECT_EQ(value(batch.at("moving"), 3 * 12 - 1), value(two_stacks()[1].at("moving"), in_volume));
  EXPECT_EQ(value(batch.at("labels"), 3 * 12 - 1), value(two_stacks()[1].at("labels"), in_volume));
  EXPECT_EQ(value(batch.at("momentum"), 9 * 12 - 1),
            value(two_stacks()[1].at("momentum"), 2 * 4 * 8 * 5 + in_volume));
  EXPECT_EQ(value(batch.at("moving"), 3 * 12), 0.0f) << "outside";
}

TEST(VolumeSet, RefusesPlacesInNoVolume) {
  const VolumeSet volumes(two_stacks());
  EXPECT_THROW(volumes.gather(Tensor::from<std::int32_t>({3, 0, 0, 0}, {1, 4}), {2, 2, 2}), Error);
  EXPECT_THROW(volumes.gather(some_starts().to(DType::i64), {2, 2, 2}), Error);
  EXPECT_THROW(volumes.gather(some_starts(), {2, 2}), Error);
  EXPECT_THROW(volumes.gather(Tensor(), {2, 2, 2}), Error);
}

TEST(VolumeSet, MappedLoadedAndGivenVolumesHaveTheSameBits) {
  const ScratchFolder folder;
  const auto files = save(folder, two_stacks());
  const Batch expected = VolumeSet(two_stacks()).gather(some_starts(), {3, 3, 3});
  expect_equal(VolumeSet::load(files).gather(some_starts(), {3, 3, 3}), expected);
  expect_equal(VolumeSet::map(files).gather(some_starts(), {3, 3, 3}), expected);
}

TEST(VolumeSet, MappingCopiesNothing) {
  const ScratchFolder folder;
  const auto files = save(folder, two_stacks());
  const std::int64_t before = memory_use(DeviceType::cpu).live_bytes;
  const VolumeSet volumes = VolumeSet::map(files);
  EXPECT_EQ(memory_use(DeviceType::cpu).live_bytes, before);
  EXPECT_EQ(volumes.size(), 3);
}

TEST(VolumeSet, RefusesFilesThatAreNoStackOrDoNotFitTheOthers) {
  const ScratchFolder folder;
  const auto refused = [&](const std::vector<Batch>& stacks, const std::string& file,
                           const std::string& why) {
    const auto files = save(folder, stacks);
    for (const auto& read : {VolumeSet::load, VolumeSet::map}) {
      expect_refused([&] { read(files); }, {(folder / file).string(), why});
    }
    EXPECT_THROW(VolumeSet{stacks}, Error);
  };
  const Batch good = stack_of(1, {4, 5, 6}, 1);
  const auto with = [&](const std::string& name, const Tensor& tensor) {
    Batch changed = good;
    changed[name] = tensor;
    return changed;
  };
  refused({{}}, "a.safetensors", "no volume");
  refused({with("moving", Tensor::zeros({4, 5, 6}))}, "a.safetensors", "'moving'");
  refused({with("moving", Tensor::zeros({1, 1, 4, 5, 6}, DType::f64))}, "a.safetensors", "f32 or u8");
  refused({with("moving", Tensor::zeros({2, 1, 4, 5, 6}))}, "a.safetensors", "beside");
  refused({with("moving", Tensor::zeros({1, 1, 4, 5, 7}))}, "a.safetensors", "beside");
  refused({with("moving", Tensor::zeros({1, 0, 4, 5, 6}))}, "a.safetensors", "'moving'");
  refused({good, with("more", good.at("moving"))}, "b.safetensors", "'more'");
  refused({good, with("moving", Tensor::zeros({1, 2, 4, 5, 6}))}, "b.safetensors", "in the first stack");
  Batch fewer = good;
  fewer.erase("moving");
  refused({good, fewer}, "b.safetensors", "'moving' of the first stack is missing");
  EXPECT_THROW(VolumeSet(std::vector<Batch>{}), Error);
  EXPECT_THROW(VolumeSet::map({}), InputError);
}

TEST(VolumeSet, RefusesDamagedFiles) {
  const ScratchFolder folder;
  const auto files = save(folder, {stack_of(1, {4, 5, 6}, 1)});
  const std::string whole = read_bytes(files[0]);
  for (const std::size_t size : {std::size_t{0}, std::size_t{5}, std::size_t{100}, whole.size() - 1}) {
    write_bytes(files[0], whole.substr(0, size));
    expect_refused([&] { VolumeSet::map(files); }, {files[0].string(), "not a valid safetensors file"});
  }
  std::string lying = whole;
  lying.replace(lying.find("[1,3,4,5,6]"), 11, "[9,3,4,5,6]");
  write_bytes(files[0], lying);
  expect_refused([&] { VolumeSet::map(files); }, {files[0].string(), "momentum"});
  std::filesystem::remove(files[0]);
  expect_refused([&] { VolumeSet::map(files); }, {files[0].string(), "cannot read"});
}

class VolumeSetOn : public OnDevice {};

TEST_P(VolumeSetOn, GathersWhereItsVolumesAre) {
  const VolumeSet volumes(two_stacks());
  const VolumeSet moved = volumes.to(device());
  const Batch batch = moved.gather(some_starts(), {3, 2, 4});
  EXPECT_EQ(moved.device(), device());
  EXPECT_EQ(batch.at("moving").device(), device());
  expect_equal(batch, volumes.gather(some_starts(), {3, 2, 4}));
}

TEST_P(VolumeSetOn, FindsTheForegroundOfEverySubject) {
  Batch first{{"moving", Tensor::zeros({2, 1, 2, 2, 6})}, {"target", Tensor::zeros({2, 1, 2, 2, 6})}};
  Batch second{{"moving", Tensor::zeros({1, 1, 2, 2, 4})}, {"target", Tensor::zeros({1, 1, 2, 2, 4})}};
  first["moving"].data<float>()[0] = 1.0f;            // subject 0, x = 0
  first["target"].data<float>()[4] = 1.0f;            // subject 0, x = 4
  first["target"].data<float>()[24 + 3] = 1.0f;       // subject 1, x = 3
  second["moving"].data<float>()[8 + 4 + 2] = -1.0f;  // subject 2, x = 2
  const VolumeSet volumes = VolumeSet({first, second}).to(device());
  const PatchGrid grid{{2, 2, 2}, {2, 2, 2}};
  EXPECT_EQ(volumes.foreground_starts({"moving", "target"}, grid).to_vector<std::int32_t>(),
            (std::vector<std::int32_t>{0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 2, 2, 0, 0, 2}));
  EXPECT_EQ(volumes.foreground_starts({"moving"}, grid, {.skip_first = true}).to_vector<std::int32_t>(),
            (std::vector<std::int32_t>{2, 0, 0, 2}));
  EXPECT_THROW(volumes.foreground_starts({"fixed"}, grid), Error);
}

CINNABAR_ON_EACH_DEVICE(VolumeSetOn);

}  // namespace
}  // namespace cinnabar::testing
