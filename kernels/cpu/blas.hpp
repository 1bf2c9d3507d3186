#pragma once

#include <cblas.h>

#include <limits>

#include "engine/error.hpp"

namespace cinnabar::cpu {

/// An extent as BLAS takes it. Throws where it is too large.
inline int blas_extent(const char* op, std::int64_t value) {
  CINNABAR_CHECK(value <= std::numeric_limits<int>::max(), op, "extent ", value, " is too large for BLAS");
  return static_cast<int>(value);
}

/// OpenBLAS would split a product by its number of threads and so change its rounding. Each call runs on one
/// thread, and callers spread their products by OpenMP.
inline void use_one_blas_thread() {
  static const bool done = (openblas_set_num_threads(1), true);
  (void)done;
}

/// c = op(a) op(b) + beta c for row-major matrices, op(a) m x k, op(b) k x n.
inline void gemm(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, int m, int n, int k, const float* a, int lda,
                 const float* b, int ldb, float beta, float* c, int ldc) {
  cblas_sgemm(CblasRowMajor, ta, tb, m, n, k, 1.0f, a, lda, b, ldb, beta, c, ldc);
}

inline void gemm(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, int m, int n, int k, const double* a, int lda,
                 const double* b, int ldb, double beta, double* c, int ldc) {
  cblas_dgemm(CblasRowMajor, ta, tb, m, n, k, 1.0, a, lda, b, ldb, beta, c, ldc);
}

}  // namespace cinnabar::cpu
