#include "autograd/elementwise.hpp"

#include "autograd/reduce.hpp"
#include "kernels/strided.hpp"

namespace cinnabar {

namespace {

Tensor multiply(const Tensor& grad, const Tensor& factor) {
  Tensor product = Tensor::empty_like(grad);
  elementwise_on(grad.device()).binary(Binary::mul, grad, factor, product);
  return product;
}

Tensor multiply(const Tensor& grad, double factor) {
  if (factor == 1.0) return grad;
  Tensor product = Tensor::empty_like(grad);
  elementwise_on(grad.device()).unary(Unary::affine, grad, factor, 0.0, product);
  return product;
}

/// x + y or x - y: the gradient needs neither value, so the graph keeps neither.
Variable record_sum(Tensor output, const Variable& x, const Variable& y, double sign) {
  return record_one("elementwise", std::move(output), {x, y},
                    [sign, shape_x = x.shape(), shape_y = y.shape(), needs_x = x.requires_grad(),
                     needs_y = y.requires_grad()](const Tensor& grad) {
                      return std::vector<Tensor>{needs_x ? sum_to(grad, shape_x) : Tensor{},
                                                 needs_y ? multiply(sum_to(grad, shape_y), sign) : Tensor{}};
                    });
}

/// x y: a factor is kept only where the other one needs a gradient.
Variable record_product(Tensor output, const Variable& x, const Variable& y) {
  const Tensor kept_x = y.requires_grad() ? x.value() : Tensor{};
  const Tensor kept_y = x.requires_grad() ? y.value() : Tensor{};
  return record_one("elementwise", std::move(output), {x, y},
                    [kept_x, kept_y, shape_x = x.shape(), shape_y = y.shape()](const Tensor& grad) {
                      std::vector<Tensor> gradients(2);
                      if (kept_y.defined()) gradients[0] = sum_to(multiply(grad, kept_y), shape_x);
                      if (kept_x.defined()) gradients[1] = sum_to(multiply(grad, kept_x), shape_y);
                      return gradients;
                    });
}

}  // namespace

Variable unary(Unary op, const Variable& x, double a, double b) {
  const Tensor& input = x.value();
  require_floating("elementwise", input);
  const Elementwise& kernels = elementwise_on(input.device());
  Tensor output = Tensor::empty_like(input);
  kernels.unary(op, input, a, b, output);
  if (op == Unary::affine) {
    return record_one("elementwise", output, {x},
                      [a](const Tensor& grad) { return std::vector<Tensor>{multiply(grad, a)}; });
  }
  const Tensor saved = slope_uses_output(op) ? output : input;
  return record_one("elementwise", output, {x}, [=, &kernels](const Tensor& grad_output) {
    Tensor grad_input = Tensor::empty_like(grad_output);
    kernels.unary_backward(op, grad_output, saved, a, b, grad_input);
    return std::vector<Tensor>{grad_input};
  });
}

Variable binary(Binary op, const Variable& x, const Variable& y) {
  const Tensor& p = x.value();
  const Tensor& q = y.value();
  require_floating("elementwise", p);
  require_same_device("elementwise", p, q);
  require_dtype("elementwise", q, p.dtype());
  const Elementwise& kernels = elementwise_on(p.device());
  Tensor output = Tensor::empty(broadcast_shape("elementwise", p.shape(), q.shape()), p.dtype(), p.device());
  kernels.binary(op, p, q, output);
  if (op == Binary::add) return record_sum(output, x, y, 1.0);
  if (op == Binary::sub) return record_sum(output, x, y, -1.0);
  if (op == Binary::mul) return record_product(output, x, y);
  return record_one(
      "elementwise", output, {x, y},
      [=, &kernels, needs_x = x.requires_grad(), needs_y = y.requires_grad()](const Tensor& grad) {
        std::vector<Tensor> gradients(2);
        for (const int operand : {0, 1}) {
          if (!(operand == 0 ? needs_x : needs_y)) continue;
          Tensor full = Tensor::empty_like(grad);
          kernels.binary_backward(op, grad, p, q, operand, full);
          gradients[static_cast<std::size_t>(operand)] = sum_to(full, operand == 0 ? p.shape() : q.shape());
        }
        return gradients;
      });
}

Variable add(const Variable& x, const Variable& y) {
  return binary(Binary::add, x, y);
}
Variable sub(const Variable& x, const Variable& y) {
  return binary(Binary::sub, x, y);
}
Variable mul(const Variable& x, const Variable& y) {
  return binary(Binary::mul, x, y);
}
Variable div(const Variable& x, const Variable& y) {
  return binary(Binary::div, x, y);
}
Variable pow(const Variable& x, const Variable& y) {
  return binary(Binary::pow, x, y);
}
Variable maximum(const Variable& x, const Variable& y) {
  return binary(Binary::maximum, x, y);
}
Variable minimum(const Variable& x, const Variable& y) {
  return binary(Binary::minimum, x, y);
}

Variable affine(const Variable& x, double factor, double shift) {
  return unary(Unary::affine, x, factor, shift);
}
Variable neg(const Variable& x) {
  return affine(x, -1.0, 0.0);
}
Variable scale(const Variable& x, double factor) {
  return affine(x, factor, 0.0);
}
Variable add_scalar(const Variable& x, double shift) {
  return affine(x, 1.0, shift);
}
Variable exp(const Variable& x) {
  return unary(Unary::exp, x);
}
Variable expm1(const Variable& x) {
  return unary(Unary::expm1, x);
}
Variable log(const Variable& x) {
  return unary(Unary::log, x);
}
Variable log1p(const Variable& x) {
  return unary(Unary::log1p, x);
}
Variable sqrt(const Variable& x) {
  return unary(Unary::sqrt, x);
}
Variable rsqrt(const Variable& x) {
  return unary(Unary::rsqrt, x);
}
Variable reciprocal(const Variable& x) {
  return unary(Unary::reciprocal, x);
}
Variable abs(const Variable& x) {
  return unary(Unary::abs, x);
}
Variable square(const Variable& x) {
  return unary(Unary::square, x);
}
Variable pow(const Variable& x, double exponent) {
  return unary(Unary::pow, x, exponent);
}
Variable sin(const Variable& x) {
  return unary(Unary::sin, x);
}
Variable cos(const Variable& x) {
  return unary(Unary::cos, x);
}
Variable tanh(const Variable& x) {
  return unary(Unary::tanh, x);
}
Variable sigmoid(const Variable& x) {
  return unary(Unary::sigmoid, x);
}
Variable softplus(const Variable& x) {
  return unary(Unary::softplus, x);
}
Variable relu(const Variable& x) {
  return unary(Unary::relu, x);
}
Variable leaky_relu(const Variable& x, double slope) {
  return unary(Unary::leaky_relu, x, slope);
}
Variable elu(const Variable& x, double alpha) {
  return unary(Unary::elu, x, alpha);
}
Variable clamp(const Variable& x, double low, double high) {
  CINNABAR_CHECK(low <= high, "clamp", "bounds ", low, " and ", high, " are not in order");
  return unary(Unary::clamp, x, low, high);
}

Variable prelu(const Variable& x, const Variable& weight) {
  const Tensor& p = x.value();
  const Tensor& w = weight.value();
  const bool shared = w.numel() == 1;
  CINNABAR_CHECK(shared || (w.rank() == 1 && p.rank() >= 2 && w.shape(0) == p.shape(1)), "prelu", "weight ",
                 w, " has neither one element nor one per channel of ", p);
  require_floating("prelu", p);
  require_same_device("prelu", p, w);
  require_dtype("prelu", w, p.dtype());
  Shape aligned;  // [C, 1, 1, ...] under the axes of x
  if (!shared) {
    aligned = aligned.append(w.numel());
    for (int axis = 2; axis < p.rank(); ++axis) aligned = aligned.append(1);
  }
  const Tensor slopes = w.reshape(aligned);
  const Elementwise& kernels = elementwise_on(p.device());
  Tensor output = Tensor::empty_like(p);
  kernels.binary(Binary::prelu, p, slopes, output);
  return record_one("prelu", output, {x, weight},
                    [=, &kernels, needs_x = x.requires_grad(), needs_weight = weight.requires_grad(),
                     weight_shape = w.shape()](const Tensor& grad) {
                      std::vector<Tensor> gradients(2);
                      if (needs_x) {
                        gradients[0] = Tensor::empty_like(grad);
                        kernels.binary_backward(Binary::prelu, grad, p, slopes, 0, gradients[0]);
                      }
                      if (needs_weight) {
                        Tensor full = Tensor::empty_like(grad);
                        kernels.binary_backward(Binary::prelu, grad, p, slopes, 1, full);
                        gradients[1] = sum_to(full, slopes.shape()).reshape(weight_shape);
                      }
                      return gradients;
                    });
}

Variable greater(const Variable& x, const Variable& y) {
  return binary(Binary::greater, x.detach(), y.detach());
}
Variable greater_equal(const Variable& x, const Variable& y) {
  return binary(Binary::greater_equal, x.detach(), y.detach());
}
Variable equal(const Variable& x, const Variable& y) {
  return binary(Binary::equal, x.detach(), y.detach());
}

Variable where(const Tensor& condition, const Variable& x, const Variable& y) {
  const Tensor& p = x.value();
  const Tensor& q = y.value();
  require_floating("where", p);
  require_same_device("where", p, q);
  const Shape shape =
      broadcast_shape("where", broadcast_shape("where", p.shape(), q.shape()), condition.shape());
  const Elementwise& kernels = elementwise_on(p.device());
  Tensor output = Tensor::empty(shape, p.dtype(), p.device());
  kernels.select(condition, p, q, output);
  return record_one("where", output, {x, y},
                    [=, &kernels, shape_x = p.shape(), shape_y = q.shape(), needs_x = x.requires_grad(),
                     needs_y = y.requires_grad()](const Tensor& grad) {
                      const Tensor zero = Tensor::zeros({}, grad.dtype(), grad.device());
                      std::vector<Tensor> gradients(2);
                      if (needs_x) {
                        Tensor full = Tensor::empty_like(grad);
                        kernels.select(condition, grad, zero, full);
                        gradients[0] = sum_to(full, shape_x);
                      }
                      if (needs_y) {
                        Tensor full = Tensor::empty_like(grad);
                        kernels.select(condition, zero, grad, full);
                        gradients[1] = sum_to(full, shape_y);
                      }
                      return gradients;
                    });
}

}  // namespace cinnabar
