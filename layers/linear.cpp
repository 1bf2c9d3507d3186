#include "layers/linear.hpp"

#include "autograd/matmul.hpp"

namespace cinnabar {

Linear::Linear(std::int64_t in, std::int64_t out, Generator& generator, bool with_bias) {
  CINNABAR_CHECK(in >= 1 && out >= 1, "linear", in, " inputs and ", out, " outputs");
  weight = add_parameter("weight", uniform_by_fan({out, in}, in, generator));
  if (with_bias) bias = add_parameter("bias", uniform_by_fan({out}, in, generator));
}

Variable Linear::forward(const Variable& x) {
  return linear(x, weight, bias);
}

}  // namespace cinnabar
