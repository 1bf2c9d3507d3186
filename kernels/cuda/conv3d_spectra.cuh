#pragma once

// The kernels around the transforms and products of conv3d_fft.cu.

#include "kernels/cuda/launch.cuh"
#include "kernels/epilogue_math.hpp"

namespace cinnabar::cuda {
namespace {

constexpr int kBlock = 256;
constexpr int kTile = 32;     // edge of a transposed tile
constexpr int kTileRows = 8;  // threads along it
constexpr int kOutputs = 8;   // of an axis's sum, in the registers of a thread

struct alignas(8) Complex {
  float re, im;
};

struct Extent3 {
  std::int32_t d, h, w;
};

/// Extents of the circular transforms.
struct SpectrumExtent {
  std::int32_t extent[3];

  CINNABAR_HD std::int64_t half() const { return extent[2] / 2 + 1; }
  CINNABAR_HD std::int64_t voxels() const { return std::int64_t{extent[0]} * extent[1] * extent[2]; }
  CINNABAR_HD std::int64_t frequencies() const { return half() * extent[0] * extent[1]; }
};

/// Volumes into the lower corners of transform volumes, zeros beyond.
// budget: <=40 registers, 0 B shared, 256 threads, occupancy >= 0.75
__global__ void __launch_bounds__(kBlock)
    conv3d_pad_voxel_kernel(const float* images, Extent3 extent, SpectrumExtent grid, std::int64_t volumes,
                            float* padded) {
  const std::int64_t voxel = thread_index();
  if (voxel >= grid.voxels()) return;
  const std::int64_t row = voxel / grid.extent[2];
  const auto x = static_cast<std::int32_t>(voxel - row * grid.extent[2]);
  const auto y = static_cast<std::int32_t>(row % grid.extent[1]);
  const auto z = static_cast<std::int32_t>(row / grid.extent[1]);
  const bool inside = x < extent.w && y < extent.h && z < extent.d;
  const std::int64_t size = std::int64_t{extent.d} * extent.h * extent.w;
  const std::int64_t source = (std::int64_t{z} * extent.h + y) * extent.w + x;
  for (std::int64_t v = blockIdx.y; v < volumes; v += gridDim.y) {
    padded[v * grid.voxels() + voxel] = inside ? images[v * size + source] : 0.0f;
  }
}

/// Voxel i of a volume is the circular result at i + shift, scaled and ended by the epilogue.
/// `first_volume` is that of this launch in the whole target.
// budget: <=56 registers, 0 B shared, 256 threads, occupancy >= 0.5
__global__ void __launch_bounds__(kBlock)
    conv3d_crop_voxel_kernel(const float* real, SpectrumExtent grid, Extent3 shift, Extent3 extent,
                             std::int64_t first_volume, std::int64_t volumes, std::int64_t channels,
                             float scale, EpilogueMath<float> epilogue, float* target) {
  const std::int64_t size = std::int64_t{extent.d} * extent.h * extent.w;
  const std::int64_t voxel = thread_index();
  if (voxel >= size) return;
  const std::int64_t row = voxel / extent.w;
  const std::int64_t x = (voxel - row * extent.w + shift.w) % grid.extent[2];
  const std::int64_t y = (row % extent.h + shift.h) % grid.extent[1];
  const std::int64_t z = (row / extent.h + shift.d) % grid.extent[0];
  const std::int64_t source = (z * grid.extent[1] + y) * grid.extent[2] + x;
  for (std::int64_t v = blockIdx.y; v < volumes; v += gridDim.y) {
    const std::int64_t volume = first_volume + v;
    const std::int64_t index = volume * size + voxel;
    UniformCursor uniform;
    // Rounded before a bias is added, as it is where the epilogue is a pass of its own.
    const float result = __fmul_rn(scale, real[v * grid.voxels() + source]);
    target[index] = epilogue_value(epilogue, volume % channels, index, result, uniform);
  }
}

/// to [columns][rows] = from [rows][columns], each with a distance from row to row.
// budget: <=72 registers, 8448 B shared, 256 threads, occupancy >= 0.37
__global__ void __launch_bounds__(kTile* kTileRows)
    conv3d_transpose_tile_kernel(const Complex* from, std::int64_t from_pitch, std::int64_t rows,
                                 std::int64_t columns, std::int64_t to_pitch, Complex* to) {
  CINNABAR_SHARED(Complex, tile, kTile * (kTile + 1));
  const int lane = static_cast<int>(threadIdx.x);
  const std::int64_t column = std::int64_t{blockIdx.x} * kTile;
  for (std::int64_t row = std::int64_t{blockIdx.y} * kTile; row < rows;
       row += std::int64_t{gridDim.y} * kTile) {
    for (int r = static_cast<int>(threadIdx.y); r < kTile; r += kTileRows) {
      if (row + r < rows && column + lane < columns) {
        tile[r * (kTile + 1) + lane] = from[(row + r) * from_pitch + column + lane];
      }
    }
    __syncthreads();
    for (int c = static_cast<int>(threadIdx.y); c < kTile; c += kTileRows) {
      if (row + lane < rows && column + c < columns) {
        const Complex value = tile[lane * (kTile + 1) + c];
        to[(column + c) * to_pitch + row + lane] = value;
      }
    }
    __syncthreads();
  }
}

/// A thread owns frequency f and tap k of an axis of extent n: e^(i sign 2 pi f (k - shift) / n), at
/// [k][f], or at [f][k] where sums are over frequencies. A half axis of frequencies then counts those twice
/// whose conjugates are not stored.
// budget: <=40 registers, 0 B shared, 256 threads, occupancy >= 0.75
__global__ void conv3d_factors_element_kernel(std::int32_t n, std::int32_t kernel, std::int32_t frequencies,
                                              std::int32_t shift, std::int32_t sign, bool sums_frequencies,
                                              bool half, Complex* factors) {
  const std::int64_t index = thread_index();
  if (index >= std::int64_t{kernel} * frequencies) return;
  const auto k = static_cast<std::int32_t>(sums_frequencies ? index % kernel : index / frequencies);
  const auto f = static_cast<std::int32_t>(sums_frequencies ? index / kernel : index % frequencies);
  const auto turn = static_cast<std::int32_t>(((std::int64_t{f} * (k - shift)) % n + n) % n);
  float sine;
  float cosine;
  sincospif(2.0f * static_cast<float>(turn) / static_cast<float>(n), &sine, &cosine);
  const bool twice = sums_frequencies && half && f != 0 && 2 * f != n;
  const float copies = twice ? 2.0f : 1.0f;
  factors[index] = {copies * cosine, copies * static_cast<float>(sign) * sine};
}

/// Weights [pair][tap] as complex numbers [tap][pair].
// budget: <=32 registers, 0 B shared, 256 threads, occupancy >= 1.0
__global__ void conv3d_pack_taps_kernel(const float* weight, std::int64_t pairs, std::int64_t taps,
                                        Complex* packed) {
  const std::int64_t index = thread_index();
  if (index >= pairs * taps) return;
  packed[index] = {weight[index % pairs * taps + index / pairs], 0.0f};
}

/// The real parts of [tap][pair], scaled, as weights [pair][tap].
// budget: <=32 registers, 0 B shared, 256 threads, occupancy >= 1.0
__global__ void conv3d_unpack_taps_kernel(const Complex* packed, std::int64_t pairs, std::int64_t taps,
                                          float scale, float* weight) {
  const std::int64_t index = thread_index();
  if (index >= pairs * taps) return;
  weight[index] = scale * packed[index % taps * pairs + index / taps].re;
}

/// to[a][j][b] = sum over i of from[a][i][b] factors[i][j], added to what is there where `add`. A thread owns
/// 8 values of j; b is its place in the row.
// budget: <=64 registers, 0 B shared, 256 threads, occupancy >= 0.5
__global__ void __launch_bounds__(kBlock)
    conv3d_sum_axis_kernel(const Complex* from, const Complex* factors, std::int64_t outer,
                           std::int64_t inputs, std::int64_t outputs, std::int64_t inner, bool add,
                           Complex* to) {
  const std::int64_t b = thread_index();
  if (b >= inner) return;
  const std::int64_t first = std::int64_t{blockIdx.z} * kOutputs;
  for (std::int64_t a = blockIdx.y; a < outer; a += gridDim.y) {
    Complex sums[kOutputs] = {};
    for (std::int64_t i = 0; i < inputs; ++i) {
      const Complex value = from[(a * inputs + i) * inner + b];
#pragma unroll
      for (int j = 0; j < kOutputs; ++j) {
        if (first + j < outputs) {
          const Complex factor = factors[i * outputs + first + j];
          sums[j].re += value.re * factor.re - value.im * factor.im;
          sums[j].im += value.re * factor.im + value.im * factor.re;
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kOutputs; ++j) {
      if (first + j < outputs) {
        Complex& result = to[(a * outputs + first + j) * inner + b];
        result = add ? Complex{result.re + sums[j].re, result.im + sums[j].im} : sums[j];
      }
    }
  }
}

}  // namespace
}  // namespace cinnabar::cuda
