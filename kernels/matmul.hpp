#pragma once

#include "kernels/op.hpp"

namespace cinnabar {

/// Batched matrix product, output = op(a) op(b), op a transposition of the two innermost axes where asked
/// for.
///
/// Shapes: op(a) [..., M, K], op(b) [..., K, N], output [..., M, N]; batch axes broadcast to the output's.
/// f32 and f64 on the CPU, f32 on CUDA (full precision: no TF32). Assigns the output. On the CPU the work is
/// cut into tiles by shape alone, so the bits do not depend on the number of threads.
struct Matmul {
  void (*forward)(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b, Tensor& output);
};

CINNABAR_OP(Matmul, matmul);

}  // namespace cinnabar
