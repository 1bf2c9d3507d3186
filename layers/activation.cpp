#include "layers/activation.hpp"

#include "autograd/elementwise.hpp"
#include "autograd/reduce.hpp"

namespace cinnabar {

PRelu::PRelu(std::int64_t weights, double start) {
  CINNABAR_CHECK(weights >= 1, "prelu", weights, " weights");
  weight = add_parameter("weight", Tensor::full({weights}, start));
}

Variable PRelu::forward(const Variable& x) {
  return prelu(x, weight);
}

Variable Relu::forward(const Variable& x) {
  return relu(x);
}

Variable LeakyRelu::forward(const Variable& x) {
  return leaky_relu(x, slope_);
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
