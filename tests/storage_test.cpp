#include "engine/storage.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <thread>
#include <vector>

#include "engine/error.hpp"
#include "engine/stream.hpp"
#include "engine/tensor.hpp"
#include "tests/devices.hpp"

namespace cinnabar {
namespace {

class StorageTest : public testing::OnDevice {};

TEST_P(StorageTest, CountersFollowBlocksAndTheirPeak) {
  const DeviceType type = device().type;
  const MemoryUse before = memory_use(type);
  reset_peak_memory(type);
  EXPECT_EQ(memory_use(type).peak_bytes, before.live_bytes);
  {
    const Storage first(1000, device());
    {
      const Storage second(500, device());
      EXPECT_EQ(memory_use(type).live_blocks, before.live_blocks + 2);
      EXPECT_EQ(memory_use(type).live_bytes, before.live_bytes + 1500);
    }
    EXPECT_EQ(memory_use(type).live_bytes, before.live_bytes + 1000);
    EXPECT_EQ(memory_use(type).peak_bytes, before.live_bytes + 1500);
  }
  EXPECT_EQ(memory_use(type).live_blocks, before.live_blocks);
  EXPECT_EQ(memory_use(type).live_bytes, before.live_bytes);
  EXPECT_EQ(memory_use(type).peak_bytes, before.live_bytes + 1500);
}

TEST_P(StorageTest, SharedStorageIsFreedWithItsLastTensor) {
  const DeviceType type = device().type;
  const std::int64_t before = memory_use(type).live_blocks;
  {
    Tensor rows;
    {
      const Tensor whole = Tensor::zeros({8, 16}, DType::f32, device());
      rows = whole.rows(2, 3).reshape({-1});
    }
    EXPECT_EQ(memory_use(type).live_blocks, before + 1);
    EXPECT_EQ(rows.to_vector<float>(), std::vector<float>(48, 0.0f));
  }
  EXPECT_EQ(memory_use(type).live_blocks, before);
}

TEST_P(StorageTest, BlocksAreAlignedAndMayBeEmpty) {
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, std::size_t{63}, std::size_t{4097}}) {
    const Storage block(bytes, device());
    EXPECT_EQ(block.bytes(), bytes);
    EXPECT_EQ(block.device(), device());
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(block.data()) % 64, 0u);
  }
}

TEST_P(StorageTest, AFailedAllocationThrowsAndIsNotCounted) {
#ifdef __SANITIZE_ADDRESS__
  if (device().is_cpu()) GTEST_SKIP() << "AddressSanitizer ends the program instead";
#endif
  const MemoryUse before = memory_use(device().type);
  try {
    const Storage impossible(std::numeric_limits<std::size_t>::max() / 4, device());
    FAIL() << "allocated";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("out of memory"), std::string::npos) << error.what();
  }
  EXPECT_EQ(memory_use(device().type).live_blocks, before.live_blocks);
  EXPECT_EQ(memory_use(device().type).live_bytes, before.live_bytes);
}

TEST_P(StorageTest, BytesTravelBetweenDevices) {
  const std::vector<std::int32_t> values{1, -2, 3, 1 << 30};
  const std::size_t bytes = values.size() * sizeof(values[0]);
  Storage there(bytes, device());
  Storage also_there(bytes, device());
  std::vector<std::int32_t> back(4, 0);
  copy_bytes(there.data(), device(), values.data(), Device::cpu(), bytes);
  copy_bytes(also_there.data(), device(), there.data(), device(), bytes);
  copy_bytes(back.data(), Device::cpu(), also_there.data(), device(), bytes);
  EXPECT_EQ(back, values);
  zero_bytes(also_there.data(), device(), 8);
  copy_bytes(back.data(), Device::cpu(), also_there.data(), device(), bytes);
  EXPECT_EQ(back, (std::vector<std::int32_t>{0, 0, 3, 1 << 30}));
  copy_bytes(nullptr, device(), nullptr, Device::cpu(), 0);
  zero_bytes(nullptr, device(), 0);
}

TEST_P(StorageTest, CountersAreRightAfterUseByManyThreads) {
  const MemoryUse before = memory_use(device().type);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) const Storage block(64, device());
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(memory_use(device().type).live_blocks, before.live_blocks);
  EXPECT_EQ(memory_use(device().type).live_bytes, before.live_bytes);
}

CINNABAR_ON_EACH_DEVICE(StorageTest);

class StreamTest : public testing::OnDevice {};

TEST_P(StreamTest, ScopesNestAndRestore) {
  void* const outer = current_stream(device());
  EXPECT_EQ(outer, nullptr);
  const Stream first(device());
  const Stream second(device());
  EXPECT_EQ(first.handle() == nullptr, device().is_cpu());
  {
    const StreamScope in_first(first);
    EXPECT_EQ(current_stream(device()), first.handle());
    {
      const StreamScope in_second(second);
      EXPECT_EQ(current_stream(device()), second.handle());
    }
    EXPECT_EQ(current_stream(device()), first.handle());
  }
  EXPECT_EQ(current_stream(device()), nullptr);
}

TEST_P(StreamTest, EachThreadHasItsOwnCurrentStream) {
  const Stream stream(device());
  const StreamScope scope(stream);
  void* seen = &seen;
  std::thread([&] { seen = current_stream(device()); }).join();
  EXPECT_EQ(seen, nullptr);
}

TEST_P(StreamTest, WorkOnAStreamIsDoneAfterSynchronize) {
  const Stream stream(device());
  Tensor result;
  {
    const StreamScope scope(stream);
    Tensor x = Tensor::zeros({1000}, DType::f32, device());
    x.copy_from(Tensor::full({1000}, 2.5, DType::f32));
    result = x.clone();
  }
  stream.synchronize();
  EXPECT_EQ(result.to_vector<float>(), std::vector<float>(1000, 2.5f));
  synchronize(device());
}

CINNABAR_ON_EACH_DEVICE(StreamTest);

TEST(Device, ParsesNamesAndRefusesOthers) {
  EXPECT_EQ(Device::parse("cpu"), Device::cpu());
  EXPECT_EQ(Device::parse("cuda"), Device::cuda(0));
  EXPECT_EQ(Device::parse("cuda:3"), Device::cuda(3));
  for (const char* text : {"", "gpu", "cuda:", "cuda:-1", "cuda:1x", "CPU", "cuda:99999999999"}) {
    EXPECT_THROW(Device::parse(text), InputError) << text;
  }
}

TEST(BorrowedStorage, LivesWithItsOwnerAndIsNotCounted) {
  const auto owner = std::make_shared<std::vector<float>>(8, 1.5f);
  const MemoryUse before = memory_use(DeviceType::cpu);
  {
    const auto block = std::make_shared<Storage>(owner->data(), 32, owner);
    const Tensor tensor = Tensor::over(block, {2, 4}, DType::f32);
    EXPECT_EQ(memory_use(DeviceType::cpu).live_blocks, before.live_blocks);
    EXPECT_EQ(tensor.raw(), owner->data());
    EXPECT_EQ(owner.use_count(), 2);
    EXPECT_THROW(Tensor::over(block, {9}, DType::f32), Error);
    EXPECT_THROW(Tensor::over(nullptr, {1}, DType::f32), Error);
    const auto odd = std::make_shared<Storage>(reinterpret_cast<char*>(owner->data()) + 1, 16, owner);
    EXPECT_THROW(Tensor::over(odd, {1}, DType::f32), Error);
  }
  EXPECT_EQ(owner.use_count(), 1);
  EXPECT_THROW(Storage(owner->data(), 32, nullptr), Error);
}

TEST(Device, AbsentDevicesAreRefusedWithTheReason) {
  const Device absent = Device::cuda(cuda_status().device_count);
  try {
    require_device(absent);
    FAIL() << "accepted";
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find(cuda_status().reason), std::string::npos) << error.what();
  }
  EXPECT_THROW(Storage(16, absent), InputError);
  EXPECT_THROW(Stream{absent}, InputError);
  EXPECT_THROW(device_properties(absent), InputError);
  EXPECT_THROW(Tensor::zeros({2}).to(absent), InputError);
}

TEST(Device, PropertiesOfEveryDeviceAreSensible) {
  std::vector<Device> devices{Device::cpu()};
  for (int i = 0; i < cuda_status().device_count; ++i) devices.push_back(Device::cuda(i));
  for (const Device device : devices) {
    const DeviceProperties properties = device_properties(device);
    EXPECT_FALSE(properties.name.empty());
    EXPECT_GT(properties.total_bytes, 0u);
    EXPECT_LE(properties.free_bytes, properties.total_bytes);
    EXPECT_EQ(properties.compute_capability == 0, device.is_cpu() || cuda_is_emulated());
  }
}

}  // namespace
}  // namespace cinnabar
