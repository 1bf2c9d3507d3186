// Warp operations, atomics and arithmetic of the emulator against results worked out by hand from the CUDA
// programming guide and the PTX ISA.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "kernels/cuda/launch.cuh"

namespace cinnabar {
namespace {

constexpr Device kDevice{DeviceType::cuda, 0};
constexpr unsigned kAll = 0xffffffffu;

cuda::LaunchShape one_block(unsigned threads) {
  return {dim3(1), dim3(threads)};
}

template <class T, class... Parameters, class... Arguments>
std::vector<T> run(void (*kernel)(T*, Parameters...), unsigned threads, Arguments... arguments) {
  std::vector<T> out(threads);
  cuda::launch("warp", kernel, one_block(threads), kDevice, out.data(), arguments...);
  return out;
}

template <class Launch>
std::string error_of(const Launch& launch) {
  try {
    launch();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

enum class Shuffle { index, up, down, exchange };

__global__ void shuffle_kernel(int* out, Shuffle kind, int argument, int width) {
  const int value = 100 + static_cast<int>(threadIdx.x);
  const auto delta = static_cast<unsigned>(argument);
  int result = 0;
  if (kind == Shuffle::index) result = __shfl_sync(kAll, value, argument, width);
  if (kind == Shuffle::up) result = __shfl_up_sync(kAll, value, delta, width);
  if (kind == Shuffle::down) result = __shfl_down_sync(kAll, value, delta, width);
  if (kind == Shuffle::exchange) result = __shfl_xor_sync(kAll, value, argument, width);
  out[threadIdx.x] = result;
}

TEST(EmulatedShuffle, ReadsTheLanesThatPtxNames) {
  const auto lanes = [](Shuffle kind, int argument, int width = 32) {
    return run(shuffle_kernel, 64, kind, argument, width);
  };
  const auto index = lanes(Shuffle::index, 5);
  EXPECT_EQ(index[0], 105);
  EXPECT_EQ(index[63], 137) << "each warp reads its own lane 5";
  const auto wrapped = lanes(Shuffle::index, 11, 8);  // 11 mod 8 = lane 3 of each group of 8
  EXPECT_EQ(wrapped[0], 103);
  EXPECT_EQ(wrapped[15], 111);
  const auto up = lanes(Shuffle::up, 3);
  EXPECT_EQ(up[2], 102) << "no lane below: own value";
  EXPECT_EQ(up[3], 100);
  EXPECT_EQ(up[34], 134) << "never from another warp";
  const auto up_in_groups = lanes(Shuffle::up, 1, 4);
  EXPECT_EQ(up_in_groups[4], 104);
  EXPECT_EQ(up_in_groups[5], 104);
  const auto down = lanes(Shuffle::down, 3);
  EXPECT_EQ(down[28], 131);
  EXPECT_EQ(down[29], 129) << "no lane above: own value";
  const auto down_in_groups = lanes(Shuffle::down, 2, 16);
  EXPECT_EQ(down_in_groups[13], 115);
  EXPECT_EQ(down_in_groups[14], 114);
  const auto exchanged = lanes(Shuffle::exchange, 16);
  EXPECT_EQ(exchanged[1], 117);
  EXPECT_EQ(exchanged[17], 101);
  const auto to_earlier_groups = lanes(Shuffle::exchange, 8, 8);
  EXPECT_EQ(to_earlier_groups[3], 103) << "a later group is not readable";
  EXPECT_EQ(to_earlier_groups[11], 103) << "an earlier one is";
}

__global__ void sum_kernel(double* out) {
  double sum = 1.0 + threadIdx.x;
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(kAll, sum, offset);
  out[threadIdx.x] = sum;
}

TEST(EmulatedShuffle, ButterflySumsDoublesInEveryLane) {
  const auto out = run(sum_kernel, 64);
  EXPECT_EQ(out[0], 528.0);
  EXPECT_EQ(out[31], 528.0);
  EXPECT_EQ(out[40], 528.0 + 32 * 32);
}

__global__ void partial_warp_kernel(float* out) {
  out[threadIdx.x] = __shfl_down_sync(kAll, static_cast<float>(threadIdx.x), 1);
}

TEST(EmulatedShuffle, LanesThatDoNotExistGivePoison) {
  const auto out = run(partial_warp_kernel, 40);
  EXPECT_EQ(out[38], 39.0f);
  EXPECT_TRUE(std::isnan(out[39]));
}

__global__ void half_warps_kernel(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  const unsigned mask = lane < 16 ? 0x0000ffffu : 0xffff0000u;
  int sum = lane;
  for (int offset = 8; offset > 0; offset /= 2) sum += __shfl_xor_sync(mask, sum, offset);
  out[lane] = sum;
}

TEST(EmulatedShuffle, SeparateMasksMeetSeparately) {
  const auto out = run(half_warps_kernel, 32);
  EXPECT_EQ(out[3], 120);
  EXPECT_EQ(out[20], 376);
}

__global__ void ballot_kernel(unsigned* out) {
  const unsigned t = threadIdx.x;
  const int lane = static_cast<int>(t % 32);
  if (t >= 70) return;  // returned lanes vote with 0
  const unsigned ballot = __ballot_sync(kAll, lane % 4 == 1);
  const int any = __any_sync(kAll, lane == 3);
  const int none = __any_sync(kAll, lane == 99);
  const int all = __all_sync(kAll, lane >= 0);
  const int not_all = __all_sync(kAll, lane != 2);
  const unsigned same = __match_any_sync(kAll, lane / 16);
  out[t] = any == 1 && none == 0 && all == 1 && not_all == 0 ? ballot ^ same : 0;
}

TEST(EmulatedVote, BallotAnyAllAndMatch) {
  const auto out = run(ballot_kernel, 96);
  EXPECT_EQ(out[0], 0x22222222u ^ 0x0000ffffu);
  EXPECT_EQ(out[63], 0x22222222u ^ 0xffff0000u);
  EXPECT_EQ(out[64], 0x00000022u ^ 0x0000003fu);
}

__global__ void aggregated_kernel(int* out, int* counter) {
  const unsigned active = __activemask();
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int leader = __ffs(static_cast<int>(active)) - 1;
  int base = 0;
  if (lane == leader) base = atomicAdd(counter, __popc(active));
  base = __shfl_sync(active, base, leader);
  out[base + __popc(active & ((1u << lane) - 1u))] = 1;
}

TEST(EmulatedVote, WarpAggregatedAtomicsCountEveryThread) {
  int counter = 0;
  const auto out = run(aggregated_kernel, 100, &counter);
  EXPECT_EQ(counter, 100);
  for (const int seen : out) EXPECT_EQ(seen, 1);
}

__global__ void missing_lane_kernel(int* out) {
  if (threadIdx.x != 9) {
    out[threadIdx.x] = __shfl_sync(kAll, 1, 0);
  } else {
    __syncthreads();
  }
}

__global__ void foreign_mask_kernel(int* out) {
  out[threadIdx.x] = __shfl_sync(0x0000ffffu, 1, 0);
}

__global__ void divergent_warp_kernel(int* out) {
  if (threadIdx.x < 16) {
    out[threadIdx.x] = __shfl_sync(kAll, 1, 0);
  } else {
    out[threadIdx.x] = static_cast<int>(__ballot_sync(kAll, 1));
  }
}

TEST(EmulatedWarp, OperationsThatCannotMeetAreReported) {
  EXPECT_NE(error_of([] { run(missing_lane_kernel, 32); }).find("31 wait for lanes of their warp"),
            std::string::npos);
  EXPECT_NE(error_of([] { run(foreign_mask_kernel, 32); }).find("mask lacks the calling lane"),
            std::string::npos);
  EXPECT_NE(error_of([] { run(divergent_warp_kernel, 32); }).find("divergent warp operations"),
            std::string::npos);
  EXPECT_NE(error_of([] { run(shuffle_kernel, 32, Shuffle::up, 1, 12); }).find("power of two"),
            std::string::npos);
}

// --- Atomics.

__global__ void atomics_kernel(int* out, unsigned* words, unsigned long long* wide, float* real,
                               double* precise) {
  const auto t = static_cast<int>(threadIdx.x);
  const unsigned u = threadIdx.x;
  CINNABAR_SHARED(int, shared, 4);
  if (t < 4) shared[t] = 0;
  __syncthreads();
  atomicAdd(&shared[0], t);
  atomicMax(&shared[1], t * (t % 2 == 0 ? 1 : -1));
  atomicMin(&shared[2], -t);
  atomicCAS(&shared[3], 0, 7);
  atomicAdd(&words[0], u);
  atomicMax(&words[1], u);
  atomicMin(&words[2], u + 5u);
  atomicOr(&words[3], 1u << (u % 32));
  atomicAnd(&words[4], ~(1u << (u % 8)));
  atomicXor(&words[5], u);
  atomicInc(&words[6], 9u);
  atomicDec(&words[7], 9u);
  atomicAdd(wide, static_cast<unsigned long long>(-1ll));
  atomicAdd(real, 0.5f);
  atomicAdd(precise, 0.25);
  __syncthreads();
  out[t] = shared[t % 4];
}

TEST(EmulatedAtomics, GiveTheDocumentedResults) {
  std::vector<unsigned> words{0, 0, 1000, 0, kAll, 0, 0, 0};
  unsigned long long wide = 64;
  float real = 1.0f;
  double precise = 0.0;
  const auto out = run(atomics_kernel, 64, words.data(), &wide, &real, &precise);
  EXPECT_EQ(out[0], 2016);
  EXPECT_EQ(out[1], 62);
  EXPECT_EQ(out[2], -63);
  EXPECT_EQ(out[3], 7);
  // 64 atomicInc(9) count 0..9 in turns of ten; 64 atomicDec(9) count 9..0, starting from 0.
  EXPECT_EQ(words, (std::vector<unsigned>{2016, 63, 5, kAll, 0xffffff00u, 0, 4, 6}));
  EXPECT_EQ(wide, 0u);
  EXPECT_EQ(real, 33.0f);
  EXPECT_EQ(precise, 16.0);
}

TEST(EmulatedAtomics, ReturnTheValueBefore) {
  int word = 5;
  EXPECT_EQ(atomicAdd(&word, 3), 5);
  EXPECT_EQ(atomicSub(&word, 1), 8);
  EXPECT_EQ(atomicExch(&word, 2), 7);
  EXPECT_EQ(atomicCAS(&word, 1, 9), 2);
  EXPECT_EQ(atomicCAS(&word, 2, 9), 2);
  EXPECT_EQ(word, 9);
}

// --- Arithmetic of one thread.

TEST(EmulatedArithmetic, ConversionsRoundAndSaturate) {
  EXPECT_EQ(__float2int_rd(-1.5f), -2);
  EXPECT_EQ(__float2int_ru(-1.5f), -1);
  EXPECT_EQ(__float2int_rz(-1.5f), -1);
  EXPECT_EQ(__float2int_rn(2.5f), 2);
  EXPECT_EQ(__float2int_rn(3.5f), 4);
  EXPECT_EQ(__float2int_rn(1e10f), std::numeric_limits<int>::max());
  EXPECT_EQ(__float2int_rd(-INFINITY), std::numeric_limits<int>::min());
  EXPECT_EQ(__float2int_rd(NAN), 0);
  EXPECT_EQ(__float2uint_rn(-3.0f), 0u);
  EXPECT_EQ(__float2ll_rn(1e30f), std::numeric_limits<long long>::max());
  EXPECT_EQ(__double2ll_rn(-0.5), 0);
}

TEST(EmulatedArithmetic, BitsCount) {
  EXPECT_EQ(__popc(0xf0f0u), 8);
  EXPECT_EQ(__clz(1), 31);
  EXPECT_EQ(__clz(0), 32);
  EXPECT_EQ(__ffs(0), 0);
  EXPECT_EQ(__ffs(8), 4);
  EXPECT_EQ(__brev(1u), 0x80000000u);
  EXPECT_EQ(__umulhi(0x80000000u, 6u), 3u);
  EXPECT_EQ(__umul64hi(1ull << 63, 6ull), 3ull);
  EXPECT_EQ(__float_as_int(1.0f), 0x3f800000);
  EXPECT_EQ(__int_as_float(0x40000000), 2.0f);
}

TEST(EmulatedArithmetic, MinAndMaxSkipNaN) {
  EXPECT_EQ(min(NAN, 2.0f), 2.0f);
  EXPECT_EQ(max(2.0f, NAN), 2.0f);
  EXPECT_EQ(min(-1, 4), -1);
  EXPECT_EQ(__saturatef(NAN), 0.0f);
  EXPECT_EQ(__saturatef(1.5f), 1.0f);
  EXPECT_EQ(rsqrtf(4.0f), 0.5f);
  EXPECT_EQ(sinpif(0.5f), 1.0f);
}

}  // namespace
}  // namespace cinnabar
