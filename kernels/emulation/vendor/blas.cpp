// Host stand-in for kernels/cuda/vendor/blas.cu: the same product by plain loops, in fp32.
#include "kernels/cuda/vendor/blas.hpp"

#include <complex>

namespace cinnabar::cuda::vendor {

void run(const Gemm& packed, Device) {
  const Gemm gemm = with_strides(packed);
  for (std::int64_t i = 0; i < gemm.batch; ++i) {
    const float* a = gemm.a + i * gemm.stride_a;
    const float* b = gemm.b + i * gemm.stride_b;
    float* output = gemm.output + i * gemm.stride_output;
    for (std::int64_t r = 0; r < gemm.m; ++r) {
      for (std::int64_t c = 0; c < gemm.n; ++c) {
        float sum = gemm.adds ? output[r * gemm.row_output + c] : 0.0f;
        for (std::int64_t j = 0; j < gemm.k; ++j) {
          sum += (gemm.transpose_a ? a[j * gemm.row_a + r] : a[r * gemm.row_a + j]) *
                 (gemm.transpose_b ? b[c * gemm.row_b + j] : b[j * gemm.row_b + c]);
        }
        output[r * gemm.row_output + c] = sum;
      }
    }
  }
}

void run(const ComplexGemm& gemm, Device) {
  const auto* a = reinterpret_cast<const std::complex<float>*>(gemm.a);
  const auto* b = reinterpret_cast<const std::complex<float>*>(gemm.b);
  auto* output = reinterpret_cast<std::complex<float>*>(gemm.output);
  for (std::int64_t i = 0; i < gemm.batch; ++i) {
    for (std::int64_t r = 0; r < gemm.m; ++r) {
      for (std::int64_t c = 0; c < gemm.n; ++c) {
        std::complex<float> sum;
        for (std::int64_t j = 0; j < gemm.k; ++j) {
          sum += (gemm.conjugate_transpose_a ? std::conj(a[j * gemm.row_a + r]) : a[r * gemm.row_a + j]) *
                 (gemm.transpose_b ? b[c * gemm.row_b + j] : b[j * gemm.row_b + c]);
        }
        output[r * gemm.row_output + c] = sum;
      }
    }
    a += gemm.stride_a;
    b += gemm.stride_b;
    output += gemm.stride_output;
  }
}

}  // namespace cinnabar::cuda::vendor
