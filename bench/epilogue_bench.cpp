#include "autograd/epilogue.hpp"

#include "bench/bench.hpp"
#include "kernels/dropout.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/reduce.hpp"
#include "tests/tensors.hpp"

// Bias, PReLU and dropout of extent^3 elements in 64 channels. Bytes: forward reads and writes them once and
// writes what the gradient needs; backward reads two tensors and writes one.

namespace cinnabar {
namespace {

struct Setup {
  Tensor x, y, z;
  Epilogue epilogue;

  Setup(std::int64_t extent, Device device)
      : x(testing::random_tensor({1, 64, extent, extent, extent / 64}, 1).to(device)),
        y(Tensor::empty_like(x)),
        z(Tensor::empty_like(x)) {
    epilogue.bias = testing::random_tensor({64}, 2).to(device);
    epilogue.activation = Activation::prelu;
    epilogue.weight = Tensor::full({1}, 0.25).to(device);
    epilogue.dropout = 0.2;
    epilogue.sequence = {1, 2, 0};
  }
  double bytes() const { return static_cast<double>(x.bytes()); }
};

void epilogue_forward(benchmark::State& state, Device device) {
  Setup s(state.range(0), device);
  s.epilogue.before = s.z;
  bench::measure(state, device, {3.0 * s.bytes(), 0},
                 [&] { epilogue_on(device).forward(s.x, s.epilogue, s.y); });
}
CINNABAR_BENCH(epilogue_forward, 64, 128, 256);

/// The three ops one after another.
void forward_one_by_one(benchmark::State& state, Device device) {
  Setup s(state.range(0), device);
  const Tensor bias = s.epilogue.bias.reshape({1, 64, 1, 1, 1});
  const Tensor weight = s.epilogue.weight.reshape({1, 1, 1, 1, 1});
  bench::measure(state, device, {3.0 * s.bytes(), 0}, [&] {
    elementwise_on(device).binary(Binary::add, s.x, bias, s.z);
    elementwise_on(device).binary(Binary::prelu, s.z, weight, s.y);
    dropout_on(device).apply(s.epilogue.sequence, 0.2, s.y, s.y);
  });
}
CINNABAR_RIVAL(epilogue_forward, forward_one_by_one, 64, 128, 256);

void epilogue_backward(benchmark::State& state, Device device) {
  Setup s(state.range(0), device);
  Tensor grad_bias = Tensor::empty_like(s.epilogue.bias), grad_weight = Tensor::empty_like(s.epilogue.weight);
  bench::measure(state, device, {3.0 * s.bytes(), 0},
                 [&] { epilogue_on(device).backward(s.y, s.x, s.epilogue, s.z, grad_bias, grad_weight); });
}
CINNABAR_BENCH(epilogue_backward, 64, 128, 256);

/// Dropout, both gradients of PReLU and two sums, one after another.
void backward_one_by_one(benchmark::State& state, Device device) {
  Setup s(state.range(0), device);
  const Tensor weight = s.epilogue.weight.reshape({1, 1, 1, 1, 1});
  Tensor kept = Tensor::empty_like(s.x), product = Tensor::empty_like(s.x);
  Tensor grad_bias = Tensor::empty({1, 64, 1, 1, 1}, DType::f32, device);
  Tensor grad_weight = Tensor::empty({1, 1, 1, 1, 1}, DType::f32, device);
  bench::measure(state, device, {3.0 * s.bytes(), 0}, [&] {
    dropout_on(device).apply(s.epilogue.sequence, 0.2, s.y, kept);
    elementwise_on(device).binary_backward(Binary::prelu, kept, s.x, weight, 0, s.z);
    elementwise_on(device).binary_backward(Binary::prelu, kept, s.x, weight, 1, product);
    reduce_on(device).forward(Reduction::sum, s.z, {}, 1.0, grad_bias);
    reduce_on(device).forward(Reduction::sum, product, {}, 1.0, grad_weight);
  });
}
CINNABAR_RIVAL(epilogue_backward, backward_one_by_one, 64, 128, 256);

}  // namespace
}  // namespace cinnabar
