#include <cinnabar/autograd/variable.hpp>
#include <cinnabar/engine/tensor.hpp>
#include <iostream>

int main() {
  using namespace cinnabar;
  const Variable x(Tensor::full({1}, 3.0), true);
  x.backward();
  std::cout << "dx/dx = " << x.grad().item() << "\n";
}
