#include "kernels/epilogue.hpp"

#include "kernels/dropout.hpp"

namespace cinnabar {

namespace {

constexpr const char* kOp = "epilogue";

void require_fits(const Tensor& tensor, const Tensor& y) {
  require_dtype(kOp, tensor, y.dtype());
  require_same_device(kOp, tensor, y);
}

void require_image(const Tensor& tensor, const Tensor& y) {
  require_fits(tensor, y);
  require_same_shape(kOp, tensor, y);
}

EpilogueShape shape_of(const Tensor& y) {
  EpilogueShape shape{y.shape(0), y.shape(1), 1};
  for (int axis = 2; axis < y.rank(); ++axis) shape.inner *= y.shape(axis);
  return shape;
}

}  // namespace

void check_epilogue(const Epilogue& epilogue, const Tensor& y) {
  require_floating(kOp, y);
  CINNABAR_CHECK(y.rank() >= 2, kOp, "needs a tensor [N, C, ...], got ", y);
  if (epilogue.bias.defined()) {
    CINNABAR_CHECK(epilogue.bias.shape() == Shape{y.shape(1)}, kOp, "bias ", epilogue.bias, " does not fit ",
                   y);
    require_fits(epilogue.bias, y);
  }
  if (epilogue.activation == Activation::prelu) {
    CINNABAR_CHECK(epilogue.weight.defined() &&
                       (epilogue.weight.shape() == Shape{1} || epilogue.weight.shape() == Shape{y.shape(1)}),
                   kOp, "prelu needs a weight of 1 or ", y.shape(1), " elements");
    require_fits(epilogue.weight, y);
  } else {
    CINNABAR_CHECK(!epilogue.weight.defined(), kOp, "only prelu takes a weight");
  }
  if (epilogue.activation == Activation::leaky_relu) {
    CINNABAR_CHECK(epilogue.slope >= 0.0 && epilogue.slope < 1e30, kOp, "slope ", epilogue.slope,
                   " is not at least 0: prelu takes any");
  }
  check_dropout_sequence(kOp, epilogue.sequence, epilogue.dropout);
  if (epilogue.before.defined()) require_image(epilogue.before, y);
}

EpilogueShape epilogue_shape(const Tensor& x, const Epilogue& epilogue, const Tensor& y) {
  check_epilogue(epilogue, y);
  require_image(x, y);
  return shape_of(y);
}

EpilogueShape epilogue_backward_shape(const Tensor& grad_y, const Tensor& saved, const Epilogue& epilogue,
                                      const Tensor& grad_x, const Tensor& grad_bias,
                                      const Tensor& grad_weight) {
  check_epilogue(epilogue, grad_y);
  require_image(grad_x, grad_y);
  if (epilogue.activation != Activation::none) {
    CINNABAR_CHECK(saved.defined(), kOp, "the gradient needs what forward saved");
    require_image(saved, grad_y);
  }
  if (grad_bias.defined()) {
    require_fits(grad_bias, grad_y);
    CINNABAR_CHECK(grad_bias.shape() == Shape{grad_y.shape(1)}, kOp, "gradient ", grad_bias,
                   " of the bias does not fit ", grad_y);
  }
  if (grad_weight.defined()) {
    CINNABAR_CHECK(epilogue.activation == Activation::prelu, kOp, "only prelu has a weight");
    require_fits(grad_weight, grad_y);
    require_same_shape(kOp, grad_weight, epilogue.weight);
  }
  return shape_of(grad_y);
}

}  // namespace cinnabar
