#include "autograd/epilogue.hpp"

#include <algorithm>
#include <utility>

#include "autograd/reduce.hpp"

namespace cinnabar {

namespace {

Tensor value_or_undefined(const Variable& variable) {
  return variable.defined() ? variable.value() : Tensor();
}

/// Adds an input where there is one; whether it needs a gradient.
bool append(std::vector<Variable>& inputs, const Variable& variable) {
  if (!variable.defined()) return false;
  inputs.push_back(variable);
  return variable.requires_grad();
}

/// Gradients of what an epilogue was applied to, of its bias and of its weight.
struct EpilogueGradients {
  Tensor x, bias, weight;
};

EpilogueGradients differentiate(const Epilogue& epilogue, const Tensor& saved, const Tensor& grad_y,
                                bool needs_bias, bool needs_weight) {
  EpilogueGradients result;
  if (epilogue.activation == Activation::none && epilogue.dropout == 0.0) {
    result.x = grad_y;
    if (!needs_bias) return result;
    std::vector<std::int64_t> kept(static_cast<std::size_t>(grad_y.rank()), 1);
    kept[1] = grad_y.shape(1);
    result.bias = sum_to(grad_y, Shape(std::span<const std::int64_t>(kept))).reshape(epilogue.bias.shape());
    return result;
  }
  result.x = Tensor::empty_like(grad_y);
  if (needs_bias) result.bias = Tensor::empty_like(epilogue.bias);
  if (needs_weight) result.weight = Tensor::empty_like(epilogue.weight);
  epilogue_on(grad_y.device()).backward(grad_y, saved, epilogue, result.x, result.bias, result.weight);
  return result;
}

}  // namespace

Variable record_with_epilogue(const char* op, Tensor output, std::vector<Variable> inputs,
                              const EpilogueInputs& epilogue,
                              const std::function<void(const Epilogue&, Tensor& output)>& compute,
                              std::function<std::vector<Tensor>(const Tensor& grad)> gradients) {
  const bool has_bias = epilogue.bias.defined(), has_weight = epilogue.weight.defined();
  const bool needs_bias = append(inputs, epilogue.bias);
  const bool needs_weight = append(inputs, epilogue.weight);
  Epilogue after{value_or_undefined(epilogue.bias),
                 epilogue.activation,
                 epilogue.slope,
                 value_or_undefined(epilogue.weight),
                 epilogue.dropout,
                 epilogue.sequence,
                 Tensor()};
  const bool recorded = grad_enabled() && std::any_of(inputs.begin(), inputs.end(),
                                                      [](const Variable& v) { return v.requires_grad(); });
  // A learned weight may be negative, and then y no longer tells the sign of z.
  if (recorded && after.activation == Activation::prelu) after.before = Tensor::empty_like(output);
  compute(after, output);
  const Tensor saved = after.activation == Activation::none ? Tensor()
                       : after.before.defined()             ? after.before
                                                            : output;
  after.before = Tensor();
  return record_one(op, output, inputs, [=, gradients = std::move(gradients)](const Tensor& grad_output) {
    EpilogueGradients mine = differentiate(after, saved, grad_output, needs_bias, needs_weight);
    std::vector<Tensor> all = gradients(mine.x);
    if (has_bias) all.push_back(mine.bias);
    if (has_weight) all.push_back(mine.weight);
    return all;
  });
}

Variable epilogue(const Variable& x, const EpilogueInputs& inputs) {
  const Tensor& value = x.value();
  return record_with_epilogue(
      "epilogue", Tensor::empty_like(value), {x}, inputs,
      [&](const Epilogue& after, Tensor& output) {
        epilogue_on(value.device()).forward(value, after, output);
      },
      [](const Tensor& grad) { return std::vector<Tensor>{grad}; });
}

}  // namespace cinnabar
