// The emulator of kernels/emulation is tested as an instrument: it must give CUDA's results for correct
// kernels and must find the faults it claims to find.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "kernels/cuda/launch.cuh"

namespace cinnabar {
namespace {

constexpr Device kDevice{DeviceType::cuda, 0};

cuda::LaunchShape one_block(unsigned threads) {
  return {dim3(1), dim3(threads)};
}

/// Expects a launch to throw an Error that contains every given text.
template <class Launch>
void expect_error(const Launch& launch, const std::vector<std::string>& texts) {
  try {
    launch();
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    for (const std::string& text : texts) {
      EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
    }
  }
}

// --- Indices, order, errors.

__global__ void mark_voxel_kernel(int* visits, dim3 extent) {
  const unsigned x = blockIdx.x * blockDim.x + threadIdx.x;
  const unsigned y = blockIdx.y * blockDim.y + threadIdx.y;
  const unsigned z = blockIdx.z * blockDim.z + threadIdx.z;
  if (x < extent.x && y < extent.y && z < extent.z) atomicAdd(&visits[(z * extent.y + y) * extent.x + x], 1);
}

TEST(EmulatedGrid, EveryThreadOfAThreeDimensionalGridRunsOnce) {
  const dim3 extent(13, 7, 5);
  std::vector<int> visits(13 * 7 * 5, 0);
  cuda::launch("mark", mark_voxel_kernel, {dim3(4, 3, 2), dim3(4, 3, 3)}, kDevice, visits.data(), extent);
  for (const int count : visits) EXPECT_EQ(count, 1);
}

__global__ void log_order_kernel(int* log, int* length) {
  log[atomicAdd(length, 1)] = static_cast<int>(cuda::thread_index());
}

TEST(EmulatedGrid, OrderOfBlocksAndThreadsIsShuffledAndRepeatable) {
  constexpr int kCount = 40 * 64;
  std::vector<int> logs[2];
  for (auto& log : logs) {
    log.assign(kCount, -1);
    int length = 0;
    cuda::launch("log_order", log_order_kernel, {dim3(40), dim3(64)}, kDevice, log.data(), &length);
    EXPECT_EQ(length, kCount);
  }
  EXPECT_EQ(logs[0], logs[1]);
  EXPECT_FALSE(std::is_sorted(logs[0].begin(), logs[0].begin() + 64));
  EXPECT_NE(logs[0][64] / 64, logs[0][0] / 64 + 1);
  std::sort(logs[0].begin(), logs[0].end());
  for (int i = 0; i < kCount; ++i) EXPECT_EQ(logs[0][static_cast<std::size_t>(i)], i);
}

TEST(EmulatedGrid, ShapesThatAGpuRefusesAreRefused) {
  int length = 0;
  int log = 0;
  const auto start = [&](dim3 grid, dim3 block) {
    cuda::launch("log_order", log_order_kernel, {grid, block}, kDevice, &log, &length);
  };
  EXPECT_THROW(start(dim3(1), dim3(1025)), Error);
  EXPECT_THROW(start(dim3(1), dim3(1, 1, 65)), Error);
  EXPECT_THROW(start(dim3(0), dim3(32)), Error);
  EXPECT_THROW(start(dim3(1, 65536), dim3(32)), Error);
  EXPECT_EQ(length, 0);
}

__global__ void throwing_kernel(int* counter) {
  const std::vector<int> owned(100, 1);  // must be freed when the kernel is unwound
  __syncthreads();
  if (threadIdx.x == 5) fail("throwing", "thread 5");
  __syncthreads();
  atomicAdd(counter, owned[3]);
}

TEST(EmulatedGrid, AnErrorInAThreadReachesTheLauncherAndEndsItsBlock) {
  int counter = 0;
  const auto run = [&] { cuda::launch("throwing", throwing_kernel, {dim3(3), dim3(64)}, kDevice, &counter); };
  expect_error(run, {"throwing: thread 5"});
  EXPECT_EQ(counter, 0);
  expect_error(run, {"throwing: thread 5"});  // the fibers are usable again
}

__global__ void nothing_kernel() {}

__global__ void nested_kernel() {
  cuda::launch("inner", nothing_kernel, {dim3(1), dim3(1)}, kDevice);
}

TEST(EmulatedGrid, LaunchesFromKernelsAndOnTheCpuAreRefused) {
  EXPECT_THROW(cuda::launch("nested", nested_kernel, one_block(1), kDevice), Error);
  EXPECT_THROW(cuda::launch("cpu", nothing_kernel, one_block(1), Device::cpu()), Error);
  EXPECT_THROW(__syncthreads(), Error);
}

__global__ void count_kernel(std::int64_t* out, std::int64_t count) {
  const std::int64_t i = cuda::thread_index();
  if (i < count) out[i] = i;
}

TEST(EmulatedGrid, AMillionThreadsWithoutBarriersAreCheap) {
  std::vector<std::int64_t> out(1'000'003, -1);
  const auto count = static_cast<std::int64_t>(out.size());
  cuda::launch("count", count_kernel, cuda::cover(count), kDevice, out.data(), count);
  for (std::int64_t i = 0; i < count; ++i) ASSERT_EQ(out[static_cast<std::size_t>(i)], i);
}

// --- Barriers.

__global__ void block_sum_kernel(const float* input, float* sum) {
  CINNABAR_SHARED(float, partial, 1024);
  const unsigned t = threadIdx.x;
  partial[t] = input[t];
  __syncthreads();
  for (unsigned active = blockDim.x; active > 1;) {
    const unsigned half = (active + 1) / 2;
    if (t < active - half) partial[t] += partial[t + half];
    __syncthreads();
    active = half;
  }
  if (t == 0) *sum = partial[0];
}

TEST(EmulatedBarrier, BlockSumsAreRightForOddBlockSizes) {
  for (const unsigned threads : {1u, 2u, 3u, 31u, 33u, 100u, 255u, 257u, 1023u, 1024u}) {
    std::vector<float> input(threads);
    std::iota(input.begin(), input.end(), 1.0f);
    float sum = 0.0f;
    cuda::launch("block_sum", block_sum_kernel, one_block(threads), kDevice, input.data(), &sum);
    EXPECT_EQ(sum, static_cast<float>(threads * (threads + 1) / 2)) << threads;
  }
}

__global__ void vote_kernel(int* out) {
  const int t = static_cast<int>(threadIdx.x);
  const int count = __syncthreads_count(t % 3 == 0);
  const int any = __syncthreads_or(t == 40);
  const int none = __syncthreads_or(t == 999);
  const int all = __syncthreads_and(t >= 0);
  const int not_all = __syncthreads_and(t != 7);
  out[t] = count * 16 + any * 8 + none * 4 + all * 2 + not_all;
}

TEST(EmulatedBarrier, VotesOfTheBlockCount) {
  std::vector<int> out(100);
  cuda::launch("vote", vote_kernel, one_block(100), kDevice, out.data());
  for (const int result : out) EXPECT_EQ(result, 34 * 16 + 8 + 2);
}

__global__ void early_return_kernel() {
  if (threadIdx.x >= 50) return;
  __syncthreads();
}

TEST(EmulatedBarrier, ABarrierThatSomeThreadsSkipIsReported) {
  expect_error(
      [] {
        cuda::launch("skip", early_return_kernel, {dim3(2), dim3(64)}, kDevice);
      },
      {"skip: block (", "of 64 threads, 14 have returned, 50 wait at the barrier emulation_test.cpp:"});
}

__global__ void divergent_barrier_kernel() {
  if (threadIdx.x % 2 == 0) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

TEST(EmulatedBarrier, ThreadsAtDifferentBarriersAreReported) {
  expect_error([] { cuda::launch("diverge", divergent_barrier_kernel, one_block(64), kDevice); },
               {"diverge: divergent barriers", "__syncthreads", "block (0, 0, 0)"});
}

__global__ void uneven_loop_kernel() {
  for (unsigned i = 0; i <= threadIdx.x / 32; ++i) __syncthreads();
}

TEST(EmulatedBarrier, UnevenNumbersOfBarriersAreReported) {
  expect_error([] { cuda::launch("uneven", uneven_loop_kernel, one_block(64), kDevice); },
               {"32 have returned, 32 wait at the barrier"});
}

// --- Shared memory.

__global__ void poison_kernel(float* seen) {
  CINNABAR_SHARED(float, tile, 64);
  seen[blockIdx.x * blockDim.x + threadIdx.x] = tile[threadIdx.x];
  __syncthreads();
  tile[threadIdx.x] = 1.0f;
}

TEST(EmulatedShared, EveryBlockBeginsWithPoison) {
  std::vector<float> seen(3 * 64, 0.0f);
  for (int launches = 0; launches < 2; ++launches) {
    cuda::launch("poison", poison_kernel, {dim3(3), dim3(64)}, kDevice, seen.data());
    for (const float value : seen) EXPECT_TRUE(std::isnan(value));
  }
}

__global__ void out_of_bounds_kernel(int index, bool write) {
  CINNABAR_SHARED(float, tile, 64);
  if (threadIdx.x != 3) return;
  if (write) {
    tile[index] = 1.0f;
  } else {
    const float value = tile[index];
    static_cast<void>(value);
  }
}

TEST(EmulatedShared, IndicesOutsideAnArrayAreReported) {
  for (const int index : {-1, 64, 1 << 30}) {
    for (const bool write : {false, true}) {
      expect_error(
          [&] { cuda::launch("bounds", out_of_bounds_kernel, one_block(64), kDevice, index, write); },
          {"bounds: index " + std::to_string(index) + " of shared 'tile' is outside 0..63",
           "thread (3, 0, 0) of block (0, 0, 0)"});
    }
  }
}

__global__ void too_much_shared_kernel() {
  CINNABAR_SHARED(float, half_of_it, 6 * 1024);
  CINNABAR_SHARED(double, the_rest, 3 * 1024 + 1);
  half_of_it[0] = 0.0f;
  the_rest[0] = 0.0;
}

TEST(EmulatedShared, MoreSharedMemoryThanADeviceGrantsIsReported) {
  expect_error([] { cuda::launch("large", too_much_shared_kernel, one_block(1), kDevice); },
               {"49160 bytes of shared memory"});
}

enum class Fault { none, missing_barrier, write_write, read_then_write, atomic_then_read };

__global__ void racy_kernel(Fault fault, float* out) {
  CINNABAR_SHARED(float, tile, 64);
  const unsigned t = threadIdx.x;
  const unsigned next = (t + 1) % blockDim.x;
  tile[t] = static_cast<float>(t);
  if (fault != Fault::missing_barrier) __syncthreads();
  out[t] = tile[next];
  if (fault != Fault::read_then_write) __syncthreads();
  tile[fault == Fault::write_write ? 7 : t] = static_cast<float>(2 * t);
  __syncthreads();
  atomicAdd(&tile[t / 2], 1.0f);
  if (fault != Fault::atomic_then_read) __syncthreads();
  out[t] += tile[next];
}

TEST(EmulatedShared, RacesAreReportedAndCorrectKernelsAreNot) {
  std::vector<float> out(64);
  const auto run = [&](Fault fault) {
    return [&, fault] { cuda::launch("racy", racy_kernel, one_block(64), kDevice, fault, out.data()); };
  };
  run(Fault::none)();
  EXPECT_EQ(out[0], 1.0f + 2.0f + 2.0f);  // tile[1] = 1, then 2 * 1 and two atomic ones
  EXPECT_EQ(out[63], 0.0f + 0.0f + 2.0f);
  expect_error(run(Fault::missing_barrier), {"racy: race on shared 'tile'[", "with no barrier between"});
  expect_error(run(Fault::read_then_write), {"race on shared 'tile'[", "read by", "and written"});
  expect_error(run(Fault::write_write), {"race on shared 'tile'[7]", "written with another value"});
  expect_error(run(Fault::atomic_then_read), {"race on shared 'tile'[", "updated by an atomic"});
}

__global__ void agree_kernel(int* out) {
  CINNABAR_SHARED(int, flag, 1);
  if (threadIdx.x % 5 == 0) flag[0] = 1;
  __syncthreads();
  out[threadIdx.x] = flag[0];
}

TEST(EmulatedShared, ThreadsMayWriteTheSameValue) {
  std::vector<int> out(64);
  cuda::launch("agree", agree_kernel, one_block(64), kDevice, out.data());
  EXPECT_EQ(std::accumulate(out.begin(), out.end(), 0), 64);
}

__device__ float warp_sum(cuda::SharedPointer<float> words, bool synchronised) {
  const unsigned lane = threadIdx.x % 32;
  for (unsigned half = 16; half > 0; half /= 2) {
    if (lane < half) words[lane] += words[lane + half];
    if (synchronised) __syncwarp();
  }
  return words[0];
}

__global__ void warp_sum_kernel(bool synchronised, float* out) {
  CINNABAR_SHARED(float, words, 96);
  words[threadIdx.x] = 1.0f;
  __syncthreads();
  out[threadIdx.x] = warp_sum(words + threadIdx.x / 32 * 32, synchronised);
}

TEST(EmulatedShared, SyncwarpOrdersTheThreadsOfAWarp) {
  std::vector<float> out(96);
  cuda::launch("warp_sum", warp_sum_kernel, one_block(96), kDevice, true, out.data());
  for (const float sum : out) EXPECT_EQ(sum, 32.0f);
  expect_error([&] { cuda::launch("warp_sum", warp_sum_kernel, one_block(96), kDevice, false, out.data()); },
               {"race on shared 'words'["});
}

__global__ void vector_kernel(float4* out) {
  CINNABAR_SHARED(float4, rows, 32);
  const auto t = static_cast<float>(threadIdx.x);
  rows[threadIdx.x] = make_float4(t, t + 1, t + 2, t + 3);
  __syncthreads();
  const float4 row = rows[31 - threadIdx.x];
  out[threadIdx.x] = row;
}

TEST(EmulatedShared, HoldsVectors) {
  std::vector<float4> out(32);
  cuda::launch("vector", vector_kernel, one_block(32), kDevice, out.data());
  EXPECT_EQ(out[0].w, 34.0f);
  EXPECT_EQ(out[31].x, 0.0f);
}

// --- Device memory, seen by AddressSanitizer.

#ifdef __SANITIZE_ADDRESS__

__global__ void overrun_kernel(float* out) {
  __syncthreads();
  out[threadIdx.x] = 1.0f;
}

TEST(EmulatedMemoryDeathTest, AddressSanitizerFindsOverrunsOfDeviceMemory) {
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_DEATH(
      {
        Tensor buffer = Tensor::empty({63}, DType::f32, kDevice);
        cuda::launch("overrun", overrun_kernel, one_block(64), kDevice, buffer.data<float>());
      },
      "heap-buffer-overflow");
}

#endif

TEST(EmulatedMemory, FreshDeviceMemoryIsNaN) {
  const Tensor fresh = Tensor::empty({5}, DType::f32, kDevice);
  for (const float value : fresh.to_vector<float>()) EXPECT_TRUE(std::isnan(value));
}

}  // namespace
}  // namespace cinnabar
