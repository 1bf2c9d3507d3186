#pragma once

#include <utility>

#include "autograd/variable.hpp"
#include "kernels/epilogue.hpp"

namespace cinnabar {

/// An Epilogue (kernels/epilogue.hpp) whose bias and weight are differentiated; either may be undefined.
struct EpilogueInputs {
  EpilogueInputs() = default;
  /// Nothing but a bias, which may be undefined.
  EpilogueInputs(Variable only_bias) : bias(std::move(only_bias)) {}

  Variable bias;
  Activation activation = Activation::none;
  double slope = 0.01;
  Variable weight;
  double dropout = 0.0;
  RandomSequence sequence;
};

/// drop(activation(x + bias)) for x [N, C, ...] in one pass, differentiable in x, bias and weight in one
/// more.
Variable epilogue(const Variable& x, const EpilogueInputs& inputs);

/// For ops that end with an epilogue: gives `compute` the epilogue and the output to write, and records the
/// op. `gradients` gets the gradient of what the epilogue was applied to, and returns those of `inputs`.
Variable record_with_epilogue(const char* op, Tensor output, std::vector<Variable> inputs,
                              const EpilogueInputs& epilogue,
                              const std::function<void(const Epilogue&, Tensor& output)>& compute,
                              std::function<std::vector<Tensor>(const Tensor& grad)> gradients);

}  // namespace cinnabar
