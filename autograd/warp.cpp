#include "autograd/warp.hpp"

#include "kernels/elementwise.hpp"
#include "kernels/warp.hpp"

namespace cinnabar {

namespace {

/// An input shared by the batch gets the shape of the displacement's batch.
Tensor output_of(const char* op, const Tensor& input, const Tensor& displacement) {
  CINNABAR_CHECK(input.rank() == 5 && displacement.rank() == 5, op, "needs [N, C, D, H, W] tensors, got ",
                 input, " and ", displacement);
  return Tensor::empty(input.shape().with(0, displacement.shape(0)), input.dtype(), input.device());
}

}  // namespace

Variable warp(const Variable& input, const Variable& displacement, Boundary boundary) {
  const Tensor image = input.value();
  const Tensor u = displacement.value();
  Tensor output = output_of("warp", image, u);
  warp_on(image.device()).forward(image, u, boundary, output);
  const bool wants_input = input.requires_grad();
  const bool wants_displacement = displacement.requires_grad();
  return record_one("warp", output, {input, displacement}, [=](const Tensor& grad_output) {
    const Warp& kernels = warp_on(u.device());
    std::vector<Tensor> grads(2);
    if (wants_input) {
      grads[0] = Tensor::empty_like(image);
      kernels.backward_input(grad_output, u, boundary, grads[0]);
    }
    if (wants_displacement) {
      grads[1] = Tensor::empty_like(u);
      kernels.backward_displacement(grad_output, image, u, boundary, grads[1]);
    }
    return grads;
  });
}

Variable splat(const Variable& values, const Variable& displacement, Boundary boundary) {
  const Tensor image = values.value();
  const Tensor u = displacement.value();
  Tensor output = output_of("splat", image, u);
  warp_on(image.device()).backward_input(image, u, boundary, output);
  return record_one("splat", output, {values, displacement}, [=](const Tensor& grad_output) {
    const Warp& kernels = warp_on(u.device());
    std::vector<Tensor> grads{Tensor::empty_like(image), Tensor::empty_like(u)};
    kernels.forward(grad_output, u, boundary, grads[0]);
    kernels.backward_displacement(image, grad_output, u, boundary, grads[1]);
    return grads;
  });
}

Variable compose(const Variable& outer, const Variable& inner) {
  const Tensor field = outer.value();
  const Tensor u = inner.value();
  Tensor composed = output_of("compose", field, u);
  warp_on(field.device()).compose(field, u, composed);
  const bool wants_outer = outer.requires_grad();
  const bool wants_inner = inner.requires_grad();
  return record_one("compose", composed, {outer, inner}, [=](const Tensor& grad_output) {
    const Warp& kernels = warp_on(u.device());
    std::vector<Tensor> grads(2);
    if (wants_outer) {
      grads[0] = Tensor::empty_like(field);
      kernels.backward_input(grad_output, u, Boundary::zeros, grads[0]);
    }
    if (wants_inner) {
      grads[1] = Tensor::empty_like(u);
      kernels.backward_displacement(grad_output, field, u, Boundary::zeros, grads[1]);
      elementwise_on(u.device()).axpy(1.0, grad_output, grads[1]);
    }
    return grads;
  });
}

}  // namespace cinnabar
