// The emulator's mma.sync against matrices spread over the lanes as the PTX ISA writes it down, element by
// element: "Matrix fragments for mma.m16n8k8" (.tf32) and "for mma.m16n8k16 with floating point type"; and
// its ldmatrix against the rows that the lanes name.

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/cuda/mma_tile.cuh"
#include "kernels/cuda/shared_copy.cuh"

namespace cinnabar {
namespace {

constexpr Device kDevice{DeviceType::cuda, 0};

struct Element {
  int row, column;
};

/// a_i of .tf32, m16n8k8.
Element tf32_of_a(int group, int member, int i) {
  return {i == 0 || i == 2 ? group : group + 8, i < 2 ? member : member + 4};
}
Element tf32_of_b(int group, int member, int i) {
  return {i == 0 ? member : member + 4, group};
}
/// a_i of .f16 and .bf16, m16n8k16; two to a register.
Element half_of_a(int group, int member, int i) {
  return {i < 2 || (i >= 4 && i < 6) ? group : group + 8, member * 2 + (i & 1) + (i < 4 ? 0 : 8)};
}
Element half_of_b(int group, int member, int i) {
  return {member * 2 + (i & 1) + (i < 2 ? 0 : 8), group};
}
Element of_c(int group, int member, int i) {
  return {i < 2 ? group : group + 8, member * 2 + (i & 1)};
}

/// Small whole numbers, so that every sum is exact.
float a_at(int row, int k) {
  return static_cast<float>((row * 7 + k * 3) % 11 - 5);
}
float b_at(int k, int column) {
  return static_cast<float>((column * 5 + k) % 7 - 3);
}
float c_at(int row, int column) {
  return static_cast<float>(row - 2 * column);
}

/// Every warp of the block multiplies, with its number added to C; threads from `lanes` on leave early.
template <class Operand>
__global__ void product_kernel(float* out, int lanes) {
  constexpr int kEach = cuda::kInWord<Operand>;
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  if (lane >= lanes) return;
  const int group = lane >> 2, member = lane % 4;
  std::uint32_t a[4] = {}, b[2] = {};
  float c[4];
  for (int i = 0; i < 4; ++i) {
    float values[kEach];
    for (int v = 0; v < kEach; ++v) {
      const Element at = kEach == 1 ? tf32_of_a(group, member, i) : half_of_a(group, member, 2 * i + v);
      values[v] = a_at(at.row, at.column);
    }
    a[i] = cuda::operand_word<Operand>(values);
    const Element at = of_c(group, member, i);
    c[i] = c_at(at.row, at.column) + static_cast<float>(warp);
  }
  for (int i = 0; i < 2; ++i) {
    float values[kEach];
    for (int v = 0; v < kEach; ++v) {
      const Element at = kEach == 1 ? tf32_of_b(group, member, i) : half_of_b(group, member, 2 * i + v);
      values[v] = b_at(at.row, at.column);
    }
    b[i] = cuda::operand_word<Operand>(values);
  }
  for (int repetition = 0; repetition < 2; ++repetition) cuda::mma_tile<Operand>(a, b, c);
  for (int i = 0; i < 4; ++i) {
    const Element at = of_c(group, member, i);
    out[(warp * 16 + at.row) * 8 + at.column] = c[i];
  }
}

template <class Operand>
std::vector<float> products(int lanes = 32) {
  std::vector<float> out(3 * 16 * 8, std::nanf(""));
  cuda::launch("mma", product_kernel<Operand>, {dim3(1), dim3(96)}, kDevice, out.data(), lanes);
  return out;
}

template <class Operand>
void expect_products() {
  const std::vector<float> found = products<Operand>();
  for (int warp = 0; warp < 3; ++warp) {
    for (int row = 0; row < 16; ++row) {
      for (int column = 0; column < 8; ++column) {
        float sum = c_at(row, column) + static_cast<float>(warp);
        for (int k = 0; k < 8 * cuda::kInWord<Operand>; ++k) sum += 2 * a_at(row, k) * b_at(k, column);
        EXPECT_EQ(found[static_cast<std::size_t>((warp * 16 + row) * 8 + column)], sum)
            << warp << row << column;
      }
    }
  }
}

TEST(EmulatedMma, MultipliesFragmentsOfTf32) {
  expect_products<TensorFloat32>();
}
TEST(EmulatedMma, MultipliesFragmentsOfFp16) {
  expect_products<Half>();
}
TEST(EmulatedMma, MultipliesFragmentsOfBf16) {
  expect_products<BFloat16>();
}

TEST(EmulatedMma, NeedsAllLanes) {
  EXPECT_THROW(products<Half>(31), Error);
}

constexpr int kRows = 32;  // of 8 elements, whose values tell row and column

/// Row r of the matrices lies at row (5 r) % kRows of shared memory, copied from `in`.
template <bool kTransposed>
__global__ void matrices_kernel(const uint4* in, std::uint32_t* out) {
  alignas(16) CINNABAR_SHARED(std::uint32_t, rows, kRows * 4);
  const int lane = static_cast<int>(threadIdx.x);
  cuda::start_copy(rows + 5 * lane % kRows * 4, in + lane);
  cuda::end_copies();
  cuda::wait_for_copies<0>();
  __syncthreads();
  std::uint32_t words[4];
  cuda::load_matrices<kTransposed>(rows + 5 * lane % kRows * 4, words);
  for (int i = 0; i < 4; ++i) out[i * 32 + lane] = words[i];
}

std::uint32_t element_of(int row, int column) {
  return static_cast<std::uint32_t>(row * 8 + column);
}
std::uint32_t pair_of(std::uint32_t first, std::uint32_t second) {
  return first | second << 16;
}

TEST(EmulatedMma, LoadsMatricesByRowsThatLanesName) {
  std::vector<uint4> in;
  for (int row = 0; row < kRows; ++row) {
    std::uint32_t words[4];
    for (int w = 0; w < 4; ++w) words[w] = pair_of(element_of(row, 2 * w), element_of(row, 2 * w + 1));
    in.push_back({words[0], words[1], words[2], words[3]});
  }
  std::vector<std::uint32_t> straight(128), transposed(128);
  cuda::launch("mma", matrices_kernel<false>, {dim3(1), dim3(32)}, kDevice, in.data(), straight.data());
  cuda::launch("mma", matrices_kernel<true>, {dim3(1), dim3(32)}, kDevice, in.data(), transposed.data());
  for (int i = 0; i < 4; ++i) {
    for (int lane = 0; lane < 32; ++lane) {
      const int group = lane / 4, member = lane % 4;
      const auto at = static_cast<std::size_t>(i * 32 + lane);
      EXPECT_EQ(straight[at],
                pair_of(element_of(8 * i + group, 2 * member), element_of(8 * i + group, 2 * member + 1)));
      EXPECT_EQ(transposed[at],
                pair_of(element_of(8 * i + 2 * member, group), element_of(8 * i + 2 * member + 1, group)));
    }
  }
}

}  // namespace
}  // namespace cinnabar
