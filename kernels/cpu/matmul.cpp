#include "kernels/matmul.hpp"

#include "kernels/cpu/blas.hpp"
#include "kernels/matmul_plan.hpp"
#include "kernels/parallel.hpp"

namespace cinnabar::cpu {

namespace {

constexpr std::int64_t kTileRows = 256;  // a tile of the output is one single-threaded BLAS call
constexpr std::int64_t kTileColumns = 512;
constexpr std::int64_t kTaskWork = 1 << 18;  // multiply-adds a task should have at least

void forward(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, Tensor& output) {
  const MatmulPlan plan = plan_matmul(a, transpose_a, b, transpose_b, output);
  if (output.numel() == 0) return;
  if (plan.k == 0) return output.fill(0.0);
  use_one_blas_thread();
  const std::int64_t tiles_down = (plan.m + kTileRows - 1) / kTileRows;
  const std::int64_t tiles_right = (plan.n + kTileColumns - 1) / kTileColumns;
  const std::int64_t tiles = tiles_down * tiles_right;
  const int lda = blas_extent("matmul", plan.row_a);
  const int ldb = blas_extent("matmul", plan.row_b);
  const int ldc = blas_extent("matmul", plan.n);
  const int depth = blas_extent("matmul", plan.k);
  const std::int64_t work = std::min(plan.m, kTileRows) * std::min(plan.n, kTileColumns) * plan.k;
  dispatch_floating("matmul", a.dtype(), [&](auto element) {
    using T = decltype(element);
    const T* first_a = a.data<T>();
    const T* first_b = b.data<T>();
    T* first_c = output.data<T>();
    parallel_for(plan.batch.numel * tiles, kTaskWork / work + 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t task = first; task < last; ++task) {
        const std::int64_t matrix = task / tiles;
        std::int64_t at[2];
        plan.batch.offsets<std::int64_t>(matrix, at);
        const std::int64_t row = task % tiles / tiles_right * kTileRows;
        const std::int64_t column = task % tiles_right * kTileColumns;
        const T* tile_a = first_a + at[0] + (transpose_a ? row : row * plan.row_a);
        const T* tile_b = first_b + at[1] + (transpose_b ? column * plan.row_b : column);
        gemm(transpose_a ? CblasTrans : CblasNoTrans, transpose_b ? CblasTrans : CblasNoTrans,
             static_cast<int>(std::min(kTileRows, plan.m - row)),
             static_cast<int>(std::min(kTileColumns, plan.n - column)), depth, tile_a, lda, tile_b, ldb, T(0),
             first_c + matrix * plan.m * plan.n + row * plan.n + column, ldc);
      }
    });
  });
}

}  // namespace

extern const Matmul matmul;
const Matmul matmul{forward};

}  // namespace cinnabar::cpu
