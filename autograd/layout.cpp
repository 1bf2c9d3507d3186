#include "autograd/layout.hpp"

#include <algorithm>
#include <numeric>

#include "autograd/reduce.hpp"
#include "kernels/layout.hpp"
#include "kernels/strided.hpp"

namespace cinnabar {

namespace {

void copy(const Tensor& source, const View& from, const Shape& extents, const View& to, Tensor& target) {
  layout_on(source.device()).copy(source, from, extents, to, target);
}

Tensor permuted(const Tensor& x, const std::vector<int>& order) {
  const View plain = View::contiguous(x.shape());
  View from;
  std::vector<std::int64_t> extents;
  for (std::size_t axis = 0; axis < order.size(); ++axis) {
    extents.push_back(x.shape(order[axis]));
    from.stride[axis] = plain.stride[static_cast<std::size_t>(order[axis])];
  }
  const Shape shape(extents);
  Tensor result = Tensor::empty(shape, x.dtype(), x.device());
  copy(x, from, shape, View::contiguous(shape), result);
  return result;
}

/// A box inside a larger tensor: where it starts, its steps and its extents.
struct Box {
  View view;
  Shape extents;
};

Box sliced_box(const Shape& shape, const std::vector<Slice>& slices) {
  CINNABAR_CHECK(static_cast<int>(slices.size()) <= shape.rank(), "slice", slices.size(),
                 " slices for shape ", shape);
  Box box{View::contiguous(shape), {}};
  for (int axis = 0; axis < shape.rank(); ++axis) {
    const auto a = static_cast<std::size_t>(axis);
    const Slice wanted = a < slices.size() ? slices[a] : Slice{};
    CINNABAR_CHECK(wanted.step >= 1, "slice", "step ", wanted.step, " on axis ", axis, " is not positive");
    const std::int64_t extent = shape[axis];
    const auto position = [extent](std::int64_t at) {
      return std::clamp<std::int64_t>(at < 0 ? at + extent : at, 0, extent);
    };
    const std::int64_t start = position(wanted.start);
    const std::int64_t length = std::max<std::int64_t>(0, position(wanted.stop) - start);
    box.extents = box.extents.append(length / wanted.step + (length % wanted.step != 0 ? 1 : 0));
    box.view.offset += start * box.view.stride[a];
    box.view.stride[a] *= wanted.step;
  }
  return box;
}

Tensor read_box(const Tensor& x, const Box& box) {
  Tensor result = Tensor::empty(box.extents, x.dtype(), x.device());
  copy(x, box.view, box.extents, View::contiguous(box.extents), result);
  return result;
}

void write_box(const Tensor& values, const Box& box, Tensor& target) {
  copy(values, View::contiguous(box.extents), box.extents, box.view, target);
}

}  // namespace

Variable reshape(const Variable& x, const Shape& shape) {
  return record_one("reshape", x.value().reshape(shape), {x}, [from = x.shape()](const Tensor& grad) {
    return std::vector<Tensor>{grad.reshape(from)};
  });
}

Variable reshape(const Variable& x, std::initializer_list<std::int64_t> extents) {
  return reshape(x, x.value().reshape(extents).shape());
}

Variable squeeze(const Variable& x, int axis) {
  CINNABAR_CHECK(x.shape()[axis] == 1, "squeeze", "axis ", axis, " of ", x.value(), " is not 1");
  return reshape(x, x.shape().without(axis));
}

Variable unsqueeze(const Variable& x, int axis) {
  const int rank = x.shape().rank() + 1;
  const int at = axis < 0 ? axis + rank : axis;
  CINNABAR_CHECK(at >= 0 && at < rank, "unsqueeze", "axis ", axis, " does not fit ", x.value());
  std::vector<std::int64_t> extents(x.shape().begin(), x.shape().end());
  extents.insert(extents.begin() + at, 1);
  return reshape(x, Shape(extents));
}

Variable permute(const Variable& x, const std::vector<int>& given) {
  const Shape& shape = x.shape();
  CINNABAR_CHECK(static_cast<int>(given.size()) == shape.rank(), "permute", given.size(), " axes for ",
                 x.value());
  std::vector<int> order;
  std::vector<int> inverse(given.size(), -1);
  for (std::size_t axis = 0; axis < given.size(); ++axis) {
    order.push_back(shape.axis(given[axis]));
    int& source = inverse[static_cast<std::size_t>(order.back())];
    CINNABAR_CHECK(source < 0, "permute", "axis ", given[axis], " appears twice");
    source = static_cast<int>(axis);
  }
  return record_one("permute", permuted(x.value(), order), {x},
                    [inverse](const Tensor& grad) { return std::vector<Tensor>{permuted(grad, inverse)}; });
}

Variable transpose(const Variable& x, int axis_a, int axis_b) {
  std::vector<int> order(static_cast<std::size_t>(x.shape().rank()));
  std::iota(order.begin(), order.end(), 0);
  std::swap(order[static_cast<std::size_t>(x.shape().axis(axis_a))],
            order[static_cast<std::size_t>(x.shape().axis(axis_b))]);
  return permute(x, order);
}

Variable slice(const Variable& x, const std::vector<Slice>& slices) {
  const Box box = sliced_box(x.shape(), slices);
  return record_one("slice", read_box(x.value(), box), {x}, [box, shape = x.shape()](const Tensor& grad) {
    Tensor grad_x = Tensor::zeros(shape, grad.dtype(), grad.device());
    write_box(grad, box, grad_x);
    return std::vector<Tensor>{grad_x};
  });
}

Variable slice(const Variable& x, int axis, std::int64_t start, std::int64_t stop, std::int64_t step) {
  std::vector<Slice> slices(static_cast<std::size_t>(x.shape().axis(axis)) + 1);
  slices.back() = {start, stop, step};
  return slice(x, slices);
}

Variable concat(const std::vector<Variable>& parts, int axis) {
  CINNABAR_CHECK(!parts.empty(), "concat", "nothing to concatenate");
  const Tensor& first = parts.front().value();
  const int along = first.shape().axis(axis);
  std::int64_t total = 0;
  for (const Variable& part : parts) {
    const Tensor& value = part.value();
    require_same_device("concat", first, value);
    require_dtype("concat", value, first.dtype());
    CINNABAR_CHECK(
        value.rank() == first.rank() && value.shape().with(along, 1) == first.shape().with(along, 1),
        "concat", "shapes differ beyond axis ", axis, ": ", first, " and ", value);
    total += value.shape(along);
  }
  const Shape shape = first.shape().with(along, total);
  Tensor output = Tensor::empty(shape, first.dtype(), first.device());
  std::vector<Box> boxes;
  std::int64_t start = 0;
  for (const Variable& part : parts) {
    std::vector<Slice> slices(static_cast<std::size_t>(along) + 1);
    slices.back() = {start, start + part.shape()[along], 1};
    boxes.push_back(sliced_box(shape, slices));
    write_box(part.value(), boxes.back(), output);
    start = slices.back().stop;
  }
  std::vector<bool> needed;
  for (const Variable& part : parts) needed.push_back(part.requires_grad());
  return record_one("concat", output, parts, [boxes, needed](const Tensor& grad) {
    std::vector<Tensor> gradients(boxes.size());
    for (std::size_t i = 0; i < boxes.size(); ++i) {
      if (needed[i]) gradients[i] = read_box(grad, boxes[i]);
    }
    return gradients;
  });
}

Variable pad(const Variable& x, const std::vector<std::pair<std::int64_t, std::int64_t>>& margins,
             double value) {
  const Tensor& input = x.value();
  CINNABAR_CHECK(static_cast<int>(margins.size()) == input.rank(), "pad", margins.size(), " margins for ",
                 input);
  std::vector<std::int64_t> extents;
  std::vector<Slice> inside;
  for (std::size_t axis = 0; axis < margins.size(); ++axis) {
    const auto [before, after] = margins[axis];
    CINNABAR_CHECK(before >= 0 && after >= 0, "pad", "negative margin on axis ", axis);
    const std::int64_t extent = input.shape(static_cast<int>(axis));
    extents.push_back(before + extent + after);
    inside.push_back({before, before + extent, 1});
  }
  const Shape shape(extents);
  const Box box = sliced_box(shape, inside);
  Tensor output = Tensor::empty(shape, input.dtype(), input.device());
  if (value == 0.0) {
    output.fill(0.0);
  } else {  // one element crosses from the host and is repeated on the device
    copy(Tensor::full({}, value, input.dtype(), input.device()), View{}, shape, View::contiguous(shape),
         output);
  }
  write_box(input, box, output);
  return record_one("pad", output, {x},
                    [box](const Tensor& grad) { return std::vector<Tensor>{read_box(grad, box)}; });
}

Tensor expand_to(const Tensor& x, const Shape& shape) {
  CINNABAR_CHECK(broadcast_shape("expand", x.shape(), shape) == shape, "expand", x, " does not expand to ",
                 shape);
  const View plain = View::contiguous(x.shape());
  View from;
  const int lead = shape.rank() - x.rank();
  for (int axis = 0; axis < x.rank(); ++axis) {
    const auto a = static_cast<std::size_t>(axis);
    if (x.shape(axis) != 1) from.stride[a + static_cast<std::size_t>(lead)] = plain.stride[a];
  }
  Tensor output = Tensor::empty(shape, x.dtype(), x.device());
  copy(x, from, shape, View::contiguous(shape), output);
  return output;
}

Variable expand(const Variable& x, const Shape& shape) {
  return record_one("expand", expand_to(x.value(), shape), {x}, [from_shape = x.shape()](const Tensor& grad) {
    return std::vector<Tensor>{sum_to(grad, from_shape)};
  });
}

}  // namespace cinnabar
