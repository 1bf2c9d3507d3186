#include "autograd/matmul.hpp"

#include "autograd/elementwise.hpp"
#include "autograd/layout.hpp"
#include "autograd/reduce.hpp"
#include "kernels/matmul.hpp"
#include "kernels/matmul_plan.hpp"

namespace cinnabar {

namespace {

Tensor product(const Tensor& a, bool transpose_a, const Tensor& b, bool transpose_b) {
  Shape shape = broadcast_shape("matmul", batch_axes(a.shape()), batch_axes(b.shape()));
  shape = shape.append(a.shape(transpose_a ? -1 : -2)).append(b.shape(transpose_b ? -2 : -1));
  Tensor output = Tensor::empty(shape, a.dtype(), a.device());
  matmul_on(a.device()).forward(a, transpose_a, b, transpose_b, output);
  return output;
}

/// The product of two stacks of matrices.
Variable stacked(const Variable& x, const Variable& y, bool transpose_a, bool transpose_b) {
  const Tensor& a = x.value();
  const Tensor& b = y.value();
  require_same_device("matmul", a, b);
  return record_one("matmul", product(a, transpose_a, b, transpose_b), {x, y},
                    [=, needs_a = x.requires_grad(), needs_b = y.requires_grad()](const Tensor& grad) {
                      std::vector<Tensor> gradients(2);
                      if (needs_a) {
                        // grad op(b)^T, transposed as a whole where a is.
                        gradients[0] = sum_to(transpose_a ? product(b, transpose_b, grad, true)
                                                          : product(grad, false, b, !transpose_b),
                                              a.shape());
                      }
                      if (needs_b) {
                        gradients[1] = sum_to(transpose_b ? product(grad, true, a, transpose_a)
                                                          : product(a, !transpose_a, grad, false),
                                              b.shape());
                      }
                      return gradients;
                    });
}

}  // namespace

Variable matmul(const Variable& a, const Variable& b, bool transpose_a, bool transpose_b) {
  const Shape& left = a.shape();
  const Shape& right = b.shape();
  CINNABAR_CHECK(left.rank() >= 1 && right.rank() >= 1, "matmul", "needs vectors or matrices, got ",
                 a.value(), " and ", b.value());
  CINNABAR_CHECK((left.rank() > 1 || !transpose_a) && (right.rank() > 1 || !transpose_b), "matmul",
                 "a vector cannot be transposed: ", a.value(), " and ", b.value());
  if (left.rank() == 1)
    return squeeze(matmul(unsqueeze(a, 0), b, false, transpose_b), right.rank() == 1 ? 0 : -2);
  if (right.rank() == 1) return squeeze(matmul(a, unsqueeze(b, 1), transpose_a, false), -1);
  if (right.rank() == 2 && left.rank() > 2 && !transpose_a) {
    // One large product instead of a batch of small ones; the gradient of b needs no sum over the batch.
    const Variable rows = reshape(a, {-1, left[-1]});
    return reshape(stacked(rows, b, false, transpose_b), left.with(-1, right[transpose_b ? -2 : -1]));
  }
  return stacked(a, b, transpose_a, transpose_b);
}

Variable linear(const Variable& x, const Variable& weight, const Variable& bias) {
  CINNABAR_CHECK(weight.shape().rank() == 2 && x.shape().rank() >= 1 && x.shape()[-1] == weight.shape()[1],
                 "linear", "input ", x.value(), " does not fit weight ", weight.value());
  const Variable product = x.shape().rank() == 1 ? matmul(weight, x) : matmul(x, weight, false, true);
  if (!bias.defined()) return product;
  CINNABAR_CHECK(bias.shape() == Shape{weight.shape()[0]}, "linear", "bias ", bias.value(),
                 " does not fit weight ", weight.value());
  return product + bias;
}

}  // namespace cinnabar
