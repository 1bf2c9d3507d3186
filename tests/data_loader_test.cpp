#include "data/data_loader.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>

#include "data/patch_sampler.hpp"
#include "kernels/elementwise.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

/// A batch that holds its own number.
Batch numbered(std::int64_t step) {
  return {{"step", Tensor::from<std::int64_t>({step}, {})}};
}

std::int64_t number_of(const Batch& batch) {
  return static_cast<std::int64_t>(batch.at("step").item());
}

PatchSampler sampler() {
  return PatchSampler(VolumeSet({Batch{{"moving", random_tensor({2, 1, 7, 8, 9}, 1)},
                                       {"momentum", random_tensor({2, 3, 7, 8, 9}, 2)}}}),
                      {.patch = {3, 3, 3}, .batch_size = 5, .replacement = false, .seed = 6});
}

/// Adds noise of the batch's own sequence.
Batch noisy(Batch batch, const RandomSequence& randomness) {
  const Tensor& moving = batch.at("moving");
  Tensor noise = Tensor::empty_like(moving);
  random_on(moving.device()).uniform(randomness, 0.0, 1.0, noise);
  Tensor sum = Tensor::empty_like(moving);
  elementwise_on(moving.device()).binary(Binary::add, moving, noise, sum);
  batch["moving"] = sum;
  return batch;
}

/// The first batches of a loader, each image's values one after the other.
std::vector<std::vector<float>> first_batches(DataLoader& loader, int count) {
  std::vector<std::vector<float>> values;
  for (int k = 0; k < count; ++k) {
    for (const auto& [name, tensor] : loader.next()) values.push_back(tensor.to_vector<float>());
  }
  return values;
}

TEST(DataLoader, HandsOutTheBatchesInOrder) {
  for (const std::int64_t prefetch : {0, 1, 4}) {
    DataLoader loader(numbered, {.prefetch = prefetch});
    for (std::int64_t step = 0; step < 50; ++step) {
      EXPECT_EQ(loader.step(), step);
      ASSERT_EQ(number_of(loader.next()), step) << "prefetch " << prefetch;
    }
  }
}

TEST(DataLoader, MakesNoMoreAheadThanAsked) {
  std::atomic<int> made = 0;
  DataLoader loader(
      [&](std::int64_t step) {
        ++made;
        return numbered(step);
      },
      {.prefetch = 3});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(made, 0) << "before the first is asked for";
  loader.next();
  while (made < 4) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(made, 4);
}

TEST(DataLoader, SeekAndStateGoOnAnywhere) {
  for (const std::int64_t prefetch : {0, 2}) {
    DataLoader loader(numbered, {.prefetch = prefetch, .seed = 7});
    for (int k = 0; k < 5; ++k) loader.next();
    const SafeTensors state = loader.state();
    for (int k = 0; k < 5; ++k) loader.next();
    DataLoader resumed(numbered, {.prefetch = 3 - prefetch, .seed = 7});
    resumed.next();
    resumed.load_state(state);
    EXPECT_EQ(number_of(resumed.next()), 5);
    loader.seek(2);
    EXPECT_EQ(number_of(loader.next()), 2);
    EXPECT_THROW(loader.seek(-1), Error);
    EXPECT_EQ(number_of(loader.next()), 3);
  }
}

TEST(DataLoader, RefusesAnotherLoadersState) {
  DataLoader loader(numbered, {.seed = 7});
  loader.next();
  for (const std::map<std::string, std::string>& metadata :
       {std::map<std::string, std::string>{},
        {{"step", "3"}},
        {{"step", "3"}, {"seed", "8"}},
        {{"step", "-3"}, {"seed", "7"}},
        {{"step", "3x"}, {"seed", "7"}},
        {{"step", ""}, {"seed", "7"}},
        {{"step", "99999999999999999999"}, {"seed", "7"}}}) {
    EXPECT_THROW(loader.load_state({{}, metadata}), InputError);
  }
  EXPECT_EQ(number_of(loader.next()), 1);
}

TEST(DataLoader, AFailureComesAtItsBatchAndCanBeRetriedOrSkipped) {
  for (const std::int64_t prefetch : {0, 1, 4}) {
    std::atomic<bool> broken = true;
    DataLoader loader(
        [&](std::int64_t step) {
          if (step == 3 && broken) throw std::runtime_error("disk gone");
          return numbered(step);
        },
        {.prefetch = prefetch});
    for (std::int64_t step = 0; step < 3; ++step) EXPECT_EQ(number_of(loader.next()), step);
    for (int attempt = 0; attempt < 2; ++attempt) {
      try {
        loader.next();
        FAIL() << "the failure was lost";
      } catch (const std::runtime_error& error) {
        EXPECT_STREQ(error.what(), "disk gone");
      }
      EXPECT_EQ(loader.step(), 3);
    }
    loader.seek(4);
    EXPECT_EQ(number_of(loader.next()), 4);
    broken = false;
    loader.seek(3);
    EXPECT_EQ(number_of(loader.next()), 3);
  }
}

TEST(DataLoader, EndsCleanlyWhereverItsThreadIs) {
  { const DataLoader unused(numbered, {.prefetch = 2}); }
  for (int trial = 0; trial < 20; ++trial) {
    DataLoader full(numbered, {.prefetch = 2});
    full.next();
    if (trial % 2 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  {
    DataLoader busy(
        [](std::int64_t step) {
          if (step > 0) std::this_thread::sleep_for(std::chrono::milliseconds(30));
          return numbered(step);
        },
        {.prefetch = 2});
    busy.next();
  }
  DataLoader failed(
      [](std::int64_t step) {
        if (step > 0) throw std::runtime_error("never asked for");
        return numbered(step);
      },
      {.prefetch = 2});
  failed.next();
}

TEST(DataLoader, RefusesMisfits) {
  EXPECT_THROW(DataLoader(nullptr), Error);
  EXPECT_THROW(DataLoader(numbered, {.prefetch = -1}), Error);
  EXPECT_THROW(DataLoader(numbered, {.device = Device::cuda(99)}), Error);
}

class DataLoaderOn : public OnDevice {};

TEST_P(DataLoaderOn, PrefetchingChangesNoBit) {
  DataLoader plain(sampler(), {.prefetch = 0, .augment = noisy, .seed = 3});
  const auto expected = first_batches(plain, 9);
  for (const std::int64_t prefetch : {0, 1, 4}) {
    DataLoader loader(sampler(), {.prefetch = prefetch, .device = device(), .augment = noisy, .seed = 3});
    EXPECT_EQ(first_batches(loader, 9), expected) << prefetch;
    loader.seek(4);
    EXPECT_EQ(first_batches(loader, 2),
              std::vector<std::vector<float>>(expected.begin() + 8, expected.begin() + 12));
  }
  DataLoader other(sampler(), {.augment = noisy, .seed = 4});
  EXPECT_NE(first_batches(other, 1), first_batches(plain, 1));
}

TEST_P(DataLoaderOn, BatchesArriveOnTheDevice) {
  DataLoader loader(sampler(), {.device = device()});
  const Batch batch = loader.next();
  EXPECT_EQ(batch.at("moving").device(), device());
  EXPECT_EQ(batch.at("momentum").shape(), (Shape{5, 3, 3, 3, 3}));
}

CINNABAR_ON_EACH_DEVICE(DataLoaderOn);

}  // namespace
}  // namespace cinnabar::testing
