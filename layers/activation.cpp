#include "layers/activation.hpp"

#include "autograd/elementwise.hpp"
#include "autograd/reduce.hpp"

namespace cinnabar {

namespace {

/// An epilogue activates once, and before it drops.
bool takes_activation(const EpilogueInputs& epilogue) {
  return epilogue.activation == Activation::none && epilogue.dropout == 0.0;
}

}  // namespace

PRelu::PRelu(std::int64_t weights, double start) {
  CINNABAR_CHECK(weights >= 1, "prelu", weights, " weights");
  weight = add_parameter("weight", Tensor::full({weights}, start));
}

Variable PRelu::forward(const Variable& x) {
  return prelu(x, weight);
}

bool PRelu::join(EpilogueInputs& epilogue, std::int64_t) {
  if (!takes_activation(epilogue)) return false;
  epilogue.activation = Activation::prelu;
  epilogue.weight = weight;
  return true;
}

Variable Relu::forward(const Variable& x) {
  return relu(x);
}

bool Relu::join(EpilogueInputs& epilogue, std::int64_t) {
  if (!takes_activation(epilogue)) return false;
  epilogue.activation = Activation::relu;
  return true;
}

Variable LeakyRelu::forward(const Variable& x) {
  return leaky_relu(x, slope_);
}

bool LeakyRelu::join(EpilogueInputs& epilogue, std::int64_t) {
  if (!takes_activation(epilogue) || slope_ < 0.0) return false;
  epilogue.activation = Activation::leaky_relu;
  epilogue.slope = slope_;
  return true;
}

Variable Elu::forward(const Variable& x) {
  return elu(x, alpha_);
}

Variable Sigmoid::forward(const Variable& x) {
  return sigmoid(x);
}

Variable Tanh::forward(const Variable& x) {
  return tanh(x);
}

Variable Softmax::forward(const Variable& x) {
  return softmax(x, {axis_});
}

}  // namespace cinnabar
