// Batched matrix products by cuBLAS (kernels/cuda/vendor/blas.hpp).
// Work split: one strided-batched call per merged batch axis; batches that broadcast in an uneven way take
// one call for each step of their outer axes. Limiting resource: fp32 arithmetic for large matrices, memory
// bandwidth for thin ones.
#include "kernels/matmul.hpp"

#include "kernels/cuda/vendor/blas.hpp"
#include "kernels/matmul_plan.hpp"

namespace cinnabar::cuda {

namespace {

void forward(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, Tensor& output) {
  const MatmulPlan plan = plan_matmul(a, transpose_a, b, transpose_b, output);
  require_dtype("matmul", a, DType::f32);
  if (output.numel() == 0) return;
  if (plan.k == 0) return output.fill(0.0);
  const int last = plan.batch.rank - 1;
  vendor::Gemm gemm;
  gemm.transpose_a = transpose_a;
  gemm.transpose_b = transpose_b;
  gemm.m = plan.m;
  gemm.n = plan.n;
  gemm.k = plan.k;
  gemm.batch = last < 0 ? 1 : plan.batch.extent[last];
  gemm.stride_a = last < 0 ? 0 : plan.batch.stride[last][0];
  gemm.stride_b = last < 0 ? 0 : plan.batch.stride[last][1];
  for (std::int64_t first = 0; first < plan.batch.numel; first += gemm.batch) {
    std::int64_t at[2];
    plan.batch.offsets<std::int64_t>(first, at);
    gemm.a = a.data<float>() + at[0];
    gemm.b = b.data<float>() + at[1];
    gemm.output = output.data<float>() + first * plan.m * plan.n;
    vendor::run(gemm, output.device());
  }
}

}  // namespace

extern const Matmul matmul;
const Matmul matmul{forward};

}  // namespace cinnabar::cuda
