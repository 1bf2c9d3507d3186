#include "autograd/pool3d.hpp"

namespace cinnabar {

PooledMaxima max_pool3d_with_indices(const Variable& input, const PoolOptions& options) {
  const Tensor& x = input.value();
  const Shape shape = pooled_shape(x.shape(), options);
  Tensor output = Tensor::empty(shape, x.dtype(), x.device());
  Tensor indices = Tensor::empty(shape, DType::i32, x.device());
  pool3d_on(x.device()).max_forward(x, options, output, indices);
  Variable result =
      record_one("max_pool3d", output, {input}, [=, from = x.shape()](const Tensor& grad_output) {
        Tensor grad_input = Tensor::empty(from, grad_output.dtype(), grad_output.device());
        pool3d_on(grad_output.device()).max_backward(grad_output, indices, options, grad_input);
        return std::vector<Tensor>{grad_input};
      });
  return {std::move(result), indices};
}

Variable max_pool3d(const Variable& input, const PoolOptions& options) {
  return max_pool3d_with_indices(input, options).output;
}

Variable average_pool3d(const Variable& input, const PoolOptions& options) {
  const Tensor& x = input.value();
  Tensor output = Tensor::empty(pooled_shape(x.shape(), options), x.dtype(), x.device());
  pool3d_on(x.device()).average_forward(x, options, output);
  return record_one("average_pool3d", output, {input},
                    [options, from = x.shape()](const Tensor& grad_output) {
                      Tensor grad_input = Tensor::empty(from, grad_output.dtype(), grad_output.device());
                      pool3d_on(grad_output.device()).average_backward(grad_output, options, grad_input);
                      return std::vector<Tensor>{grad_input};
                    });
}

}  // namespace cinnabar
