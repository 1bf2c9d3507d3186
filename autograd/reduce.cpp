#include "autograd/reduce.hpp"

#include "autograd/layout.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/reduce.hpp"

namespace cinnabar {

namespace {

/// The shape with extent 1 on the reduced axes, the one without them, and how many elements meet in one
/// output.
struct Reduced {
  Shape kept;
  Shape dropped;
  std::int64_t count = 1;

  const Shape& output(bool keepdim) const { return keepdim ? kept : dropped; }
};

Reduced reduced_shapes(const Shape& shape, const Axes& axes) {
  std::vector<bool> reduce(static_cast<std::size_t>(shape.rank()), axes.empty());
  for (const int axis : axes) {
    auto flag = reduce.begin() + shape.axis(axis);
    CINNABAR_CHECK(!*flag, "reduce", "axis ", axis, " appears twice for shape ", shape);
    *flag = true;
  }
  std::vector<std::int64_t> kept;
  std::vector<std::int64_t> dropped;
  Reduced result;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    const bool gone = reduce[static_cast<std::size_t>(axis)];
    kept.push_back(gone ? 1 : shape[axis]);
    if (gone) result.count *= shape[axis];
    if (!gone) dropped.push_back(shape[axis]);
  }
  result.kept = Shape(kept);
  result.dropped = Shape(dropped);
  return result;
}

Tensor reduce_to(Reduction op, const Tensor& x, const Shape& kept, const Tensor& reference = {},
                 double scale = 1.0) {
  Tensor output = Tensor::empty(kept, x.dtype(), x.device());
  reduce_on(x.device()).forward(op, x, reference, scale, output);
  return output;
}

Tensor expand_gradient(Reduction op, const Tensor& grad, const Tensor& x, const Tensor& reference) {
  Tensor grad_x = Tensor::empty_like(x);
  reduce_on(x.device()).backward(op, grad, x, reference, grad_x);
  return grad_x;
}

Tensor apply(Unary op, const Tensor& x, double a = 0.0, double b = 0.0) {
  Tensor y = Tensor::empty_like(x);
  elementwise_on(x.device()).unary(op, x, a, b, y);
  return y;
}

/// x op y, y of x's shape or broadcast to it.
Tensor apply(Binary op, const Tensor& x, const Tensor& y) {
  Tensor z = Tensor::empty_like(x);
  elementwise_on(x.device()).binary(op, x, y, z);
  return z;
}

Tensor scaled(const Tensor& x, double factor) {
  return apply(Unary::affine, x, factor, 0.0);
}

/// grad / value, and 0 where the value is 0.
Tensor divide_or_zero(const Tensor& grad, const Tensor& value) {
  const Tensor quotient = apply(Binary::div, grad, value);
  Tensor result = Tensor::empty_like(grad);
  elementwise_on(grad.device())
      .select(value, quotient, Tensor::zeros({}, grad.dtype(), grad.device()), result);
  return result;
}

Variable sum_scaled(const char* op, const Variable& x, const Reduced& shapes, bool keepdim, double factor) {
  const Tensor& input = x.value();
  const Tensor output = reduce_to(Reduction::sum, input, shapes.kept, {}, factor);
  return record_one(op, output.reshape(shapes.output(keepdim)), {x},
                    [input_shape = input.shape(), kept = shapes.kept, factor](const Tensor& grad) {
                      return std::vector<Tensor>{expand_to(scaled(grad.reshape(kept), factor), input_shape)};
                    });
}

Variable extremum(const char* name, Reduction op, const Variable& x, const Axes& axes, bool keepdim) {
  const Tensor& input = x.value();
  const Reduced shapes = reduced_shapes(input.shape(), axes);
  const Tensor output = reduce_to(op, input, shapes.kept);
  return record_one(name, output.reshape(shapes.output(keepdim)), {x}, [=](const Tensor& grad) {
    const Tensor ties = reduce_to(Reduction::count_equal, input, shapes.kept, output);
    const Tensor share = apply(Binary::div, grad.reshape(shapes.kept), ties);
    return std::vector<Tensor>{expand_gradient(op, share, input, output)};
  });
}

}  // namespace

Variable sum(const Variable& x, const Axes& axes, bool keepdim) {
  return sum_scaled("sum", x, reduced_shapes(x.shape(), axes), keepdim, 1.0);
}

Variable mean(const Variable& x, const Axes& axes, bool keepdim) {
  const Reduced shapes = reduced_shapes(x.shape(), axes);
  CINNABAR_CHECK(shapes.count > 0, "mean", "no elements to average in ", x.value());
  return sum_scaled("mean", x, shapes, keepdim, 1.0 / static_cast<double>(shapes.count));
}

Variable prod(const Variable& x, const Axes& axes, bool keepdim) {
  const Tensor& input = x.value();
  const Reduced shapes = reduced_shapes(input.shape(), axes);
  const Tensor output = reduce_to(Reduction::prod, input, shapes.kept);
  return record_one("prod", output.reshape(shapes.output(keepdim)), {x}, [=](const Tensor& grad) {
    // With one zero only that factor has a gradient, the product of the others; with two or more none has.
    const Tensor zeros = reduce_to(Reduction::count_equal, input, shapes.kept,
                                   Tensor::zeros(shapes.kept, input.dtype(), input.device()));
    const Tensor others =
        apply(Binary::mul, reduce_to(Reduction::nonzero_prod, input, shapes.kept), grad.reshape(shapes.kept));
    const auto where_zeros_are = [&](double count) {
      const Tensor excess = apply(Unary::affine, zeros, 1.0, -count);
      const Tensor zero = Tensor::zeros({}, input.dtype(), input.device());
      return apply(Binary::mul, others, apply(Binary::equal, excess, zero));
    };
    return std::vector<Tensor>{
        expand_gradient(Reduction::prod, where_zeros_are(0.0), input, where_zeros_are(1.0))};
  });
}

Variable amax(const Variable& x, const Axes& axes, bool keepdim) {
  return extremum("amax", Reduction::maximum, x, axes, keepdim);
}

Variable amin(const Variable& x, const Axes& axes, bool keepdim) {
  return extremum("amin", Reduction::minimum, x, axes, keepdim);
}

Variable var(const Variable& x, const Axes& axes, bool unbiased, bool keepdim) {
  const Tensor& input = x.value();
  const Reduced shapes = reduced_shapes(input.shape(), axes);
  const std::int64_t divisor = shapes.count - (unbiased ? 1 : 0);
  CINNABAR_CHECK(divisor > 0, "var", shapes.count, " elements are too few in ", input);
  const double scale = 1.0 / static_cast<double>(divisor);
  const Tensor average =
      reduce_to(Reduction::sum, input, shapes.kept, {}, 1.0 / static_cast<double>(shapes.count));
  const Tensor output = reduce_to(Reduction::sum_squared_deviation, input, shapes.kept, average, scale);
  return record_one("var", output.reshape(shapes.output(keepdim)), {x}, [=](const Tensor& grad) {
    return std::vector<Tensor>{expand_gradient(Reduction::sum_squared_deviation,
                                               scaled(grad.reshape(shapes.kept), scale), input, average)};
  });
}

Variable stddev(const Variable& x, const Axes& axes, bool unbiased, bool keepdim) {
  const Variable variance = var(x, axes, unbiased, keepdim);
  const Tensor output = apply(Unary::sqrt, variance.value());
  return record_one("stddev", output, {variance}, [output](const Tensor& grad) {
    return std::vector<Tensor>{scaled(divide_or_zero(grad, output), 0.5)};
  });
}

Variable norm(const Variable& x, int p, const Axes& axes, bool keepdim) {
  CINNABAR_CHECK(p == 1 || p == 2, "norm", "p must be 1 or 2, got ", p);
  const Tensor& input = x.value();
  const Reduced shapes = reduced_shapes(input.shape(), axes);
  const Reduction op = p == 1 ? Reduction::sum_abs : Reduction::sum_squares;
  Tensor output = reduce_to(op, input, shapes.kept);
  if (p == 2) output = apply(Unary::sqrt, output);
  return record_one("norm", output.reshape(shapes.output(keepdim)), {x}, [=](const Tensor& given) {
    Tensor grad = given.reshape(shapes.kept);
    if (p == 2) grad = scaled(divide_or_zero(grad, output), 0.5);
    return std::vector<Tensor>{expand_gradient(op, grad, input, output)};
  });
}

Variable logsumexp(const Variable& x, const Axes& axes, bool keepdim) {
  const Tensor& input = x.value();
  const Reduced shapes = reduced_shapes(input.shape(), axes);
  const Tensor highest = reduce_to(Reduction::maximum, input, shapes.kept);
  const Tensor total = reduce_to(Reduction::sum_exp, input, shapes.kept, highest);
  const Tensor output = apply(Binary::add, highest, apply(Unary::log, total));
  return record_one("logsumexp", output.reshape(shapes.output(keepdim)), {x}, [=](const Tensor& grad) {
    return std::vector<Tensor>{expand_gradient(Reduction::sum_exp, grad.reshape(shapes.kept), input, output)};
  });
}

Variable cumsum(const Variable& x, int axis) {
  const Tensor& input = x.value();
  Tensor output = Tensor::empty_like(input);
  reduce_on(input.device()).cumsum(input, axis, false, output);
  return record_one("cumsum", output, {x}, [axis](const Tensor& grad) {
    Tensor grad_x = Tensor::empty_like(grad);
    reduce_on(grad.device()).cumsum(grad, axis, true, grad_x);
    return std::vector<Tensor>{grad_x};
  });
}

Variable softmax(const Variable& x, const Axes& axes) {
  const Tensor& input = x.value();
  const Shape kept = reduced_shapes(input.shape(), axes).kept;
  const Tensor highest = reduce_to(Reduction::maximum, input, kept);
  const Tensor total = reduce_to(Reduction::sum_exp, input, kept, highest);
  // e^(x - max) / total is the gradient of sum_exp with 1 / total coming in.
  const Tensor output = expand_gradient(Reduction::sum_exp, apply(Unary::reciprocal, total), input, highest);
  return record_one("softmax", output, {x}, [=](const Tensor& grad) {
    const Tensor along = reduce_to(Reduction::sum_products, grad, kept, output);
    return std::vector<Tensor>{apply(Binary::mul, apply(Binary::sub, grad, along), output)};
  });
}

Variable log_softmax(const Variable& x, const Axes& axes) {
  const Tensor& input = x.value();
  const Shape kept = reduced_shapes(input.shape(), axes).kept;
  const Tensor highest = reduce_to(Reduction::maximum, input, kept);
  const Tensor total = reduce_to(Reduction::sum_exp, input, kept, highest);
  const Tensor output = apply(Binary::sub, apply(Binary::sub, input, highest), apply(Unary::log, total));
  return record_one("log_softmax", output, {x}, [=](const Tensor& grad) {
    const Tensor total_grad = reduce_to(Reduction::sum, grad, kept);
    return std::vector<Tensor>{
        apply(Binary::sub, grad, apply(Binary::mul, apply(Unary::exp, output), total_grad))};
  });
}

Variable dot(const Variable& x, const Variable& y) {
  const Tensor& p = x.value();
  const Tensor& q = y.value();
  require_same_shape("dot", p, q);
  const Shape kept = reduced_shapes(p.shape(), {}).kept;
  const Tensor output = reduce_to(Reduction::sum_products, p, kept, q).reshape(Shape{});
  return record_one("dot", output, {x, y},
                    [=, needs_x = x.requires_grad(), needs_y = y.requires_grad()](const Tensor& grad) {
                      std::vector<Tensor> gradients(2);
                      if (needs_x) gradients[0] = apply(Binary::mul, q, grad);
                      if (needs_y) gradients[1] = apply(Binary::mul, p, grad);
                      return gradients;
                    });
}

Tensor sum_to(const Tensor& gradient, const Shape& shape) {
  if (gradient.shape() == shape) return gradient;
  std::vector<std::int64_t> aligned(static_cast<std::size_t>(gradient.rank() - shape.rank()), 1);
  aligned.insert(aligned.end(), shape.begin(), shape.end());
  return reduce_to(Reduction::sum, gradient, Shape(aligned)).reshape(shape);
}

}  // namespace cinnabar
