#pragma once

#include <cstdint>

#include "engine/device.hpp"

namespace cinnabar::cuda::vendor {

/// output[i] = op(a[i]) op(b[i]) for i < batch: row-major f32 matrices, op(a) m x k, op(b) k x n, output m x
/// n. Strides count elements between the matrices of a batch; 0 repeats one, and means a packed output.
/// row_* are those between rows; 0 means packed ones.
struct Gemm {
  bool transpose_a = false;
  bool transpose_b = false;
  std::int64_t m = 0;
  std::int64_t n = 0;
  std::int64_t k = 0;
  std::int64_t batch = 1;
  const float* a = nullptr;
  const float* b = nullptr;
  float* output = nullptr;
  std::int64_t stride_a = 0;
  std::int64_t stride_b = 0;
  std::int64_t stride_output = 0;
  std::int64_t row_a = 0;
  std::int64_t row_b = 0;
  std::int64_t row_output = 0;
  bool adds = false;  ///< to what the output holds
};

/// The same with every row and stride written out.
inline Gemm with_strides(Gemm gemm) {
  if (gemm.row_a == 0) gemm.row_a = gemm.transpose_a ? gemm.m : gemm.k;
  if (gemm.row_b == 0) gemm.row_b = gemm.transpose_b ? gemm.k : gemm.n;
  if (gemm.row_output == 0) gemm.row_output = gemm.n;
  if (gemm.stride_output == 0) gemm.stride_output = gemm.m * gemm.row_output;
  return gemm;
}

/// Runs on the current stream of the device in full fp32 (no TF32). Throws on any cuBLAS error.
void run(const Gemm& gemm, Device device);

/// output[i] = op(a[i]) op(b[i]) for i < batch, of interleaved complex f32 numbers: row-major matrices whose
/// rows are row_a, row_b and row_output numbers apart, and the matrices of a batch stride_* numbers. a is
/// m x k, or stored k x m and conjugated and transposed; b is k x n, or stored n x k and transposed.
struct ComplexGemm {
  bool conjugate_transpose_a = false;
  bool transpose_b = false;
  std::int64_t m = 0, n = 0, k = 0;
  std::int64_t batch = 1;
  const float* a = nullptr;
  const float* b = nullptr;
  float* output = nullptr;
  std::int64_t row_a = 0, row_b = 0, row_output = 0;
  std::int64_t stride_a = 0, stride_b = 0, stride_output = 0;
};

void run(const ComplexGemm& gemm, Device device);

}  // namespace cinnabar::cuda::vendor
