// cuBLAS behind kernels/cuda/vendor/blas.hpp. One handle per thread and device; the stream is set at every
// call. Pedantic math keeps fp32 products in fp32 whatever NVIDIA_TF32_OVERRIDE and the library's defaults
// say.
#include "kernels/cuda/vendor/blas.hpp"

#include <cublas_v2.h>

#include <limits>
#include <map>
#include <memory>

#include "engine/cuda_check.hpp"
#include "engine/stream.hpp"

namespace cinnabar::cuda::vendor {

namespace {

void check(cublasStatus_t status, const char* call) {
  if (status != CUBLAS_STATUS_SUCCESS)
    fail("matmul", detail::concat(call, ": ", cublasGetStatusString(status)));
}

struct DestroyHandle {
  void operator()(cublasContext* handle) const { cublasDestroy(handle); }
};

cublasHandle_t handle_on(Device device) {
  thread_local std::map<int, std::unique_ptr<cublasContext, DestroyHandle>> handles;
  auto& handle = handles[device.index];
  if (!handle) {
    cublasHandle_t created = nullptr;
    check(cublasCreate(&created), "cublasCreate");
    handle.reset(created);
    check(cublasSetMathMode(created, CUBLAS_PEDANTIC_MATH), "cublasSetMathMode");
  }
  check(cublasSetStream(handle.get(), static_cast<cudaStream_t>(current_stream(device))), "cublasSetStream");
  return handle.get();
}

int narrow(std::int64_t value) {
  CINNABAR_CHECK(value <= std::numeric_limits<int>::max(), "matmul", "extent ", value,
                 " is too large for cuBLAS");
  return static_cast<int>(value);
}

}  // namespace

void run(const Gemm& packed, Device device) {
  const Gemm gemm = with_strides(packed);
  const DeviceScope scope(device);
  const float one = 1.0f;
  const float factor_of_output = gemm.adds ? 1.0f : 0.0f;
  // cuBLAS is column-major: output^T = op(b)^T op(a)^T, and a row-major matrix read by columns is its
  // transpose.
  check(cublasSgemmStridedBatched(
            handle_on(device), gemm.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N,
            gemm.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, narrow(gemm.n), narrow(gemm.m), narrow(gemm.k),
            &one, gemm.b, narrow(gemm.row_b), gemm.stride_b, gemm.a, narrow(gemm.row_a), gemm.stride_a,
            &factor_of_output, gemm.output, narrow(gemm.row_output), gemm.stride_output, narrow(gemm.batch)),
        "cublasSgemmStridedBatched");
}

void run(const ComplexGemm& gemm, Device device) {
  const DeviceScope scope(device);
  const cuComplex one{1.0f, 0.0f};
  const cuComplex zero{0.0f, 0.0f};
  const auto complex = [](const float* values) { return reinterpret_cast<const cuComplex*>(values); };
  // By columns as above; the transpose of a conjugated transpose is a conjugate, CUBLAS_OP_C of the
  // transpose.
  check(cublasCgemmStridedBatched(handle_on(device), gemm.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                                  gemm.conjugate_transpose_a ? CUBLAS_OP_C : CUBLAS_OP_N, narrow(gemm.n),
                                  narrow(gemm.m), narrow(gemm.k), &one, complex(gemm.b), narrow(gemm.row_b),
                                  gemm.stride_b, complex(gemm.a), narrow(gemm.row_a), gemm.stride_a, &zero,
                                  reinterpret_cast<cuComplex*>(gemm.output), narrow(gemm.row_output),
                                  gemm.stride_output, narrow(gemm.batch)),
        "cublasCgemmStridedBatched");
}

}  // namespace cinnabar::cuda::vendor
