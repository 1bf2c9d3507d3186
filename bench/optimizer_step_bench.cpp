#include "kernels/optimizer_step.hpp"

#include "bench/bench.hpp"
#include "kernels/elementwise.hpp"
#include "tests/tensors.hpp"

// Updates of extent parameters of 27 * 4096 elements, about a 3x3x3 convolution from 64 to 64 channels each.
// Bytes: value, gradient and averages read, value and averages written.

namespace cinnabar {
namespace {

constexpr std::int64_t kElements = 27 * 4096;

Tensor values(std::uint64_t seed, Device device) {
  return testing::random_tensor({kElements}, seed, 0.0, 1.0).to(device);
}

void optimizer_step_adam(benchmark::State& state, Device device) {
  std::vector<AdamParameter> parameters;
  for (std::int64_t p = 0; p < state.range(0); ++p) {
    parameters.push_back({values(1, device), values(2, device), values(3, device), values(4, device), {}, 1});
  }
  const double elements = static_cast<double>(kElements * state.range(0));
  bench::measure(state, device, {28 * elements, 0},
                 [&] { optimizer_step_on(device).adam(parameters, AdamOptions{}); });
}
CINNABAR_BENCH(optimizer_step_adam, 1, 8, 64);

void optimizer_step_sgd(benchmark::State& state, Device device) {
  std::vector<SgdParameter> parameters;
  for (std::int64_t p = 0; p < state.range(0); ++p) {
    parameters.push_back({values(1, device), values(2, device), values(3, device)});
  }
  const double elements = static_cast<double>(kElements * state.range(0));
  bench::measure(state, device, {20 * elements, 0}, [&] {
    optimizer_step_on(device).sgd(parameters, {1e-3, 0.9});
  });
}
CINNABAR_BENCH(optimizer_step_sgd, 1, 8, 64);

void optimizer_step_unscale(benchmark::State& state, Device device) {
  std::vector<Tensor> gradients;
  for (std::int64_t p = 0; p < state.range(0); ++p) gradients.push_back(values(1, device));
  Tensor overflow = Tensor::zeros({1}, DType::i32, device);
  const double elements = static_cast<double>(kElements * state.range(0));
  bench::measure(state, device, {8 * elements, 0},
                 [&] { optimizer_step_on(device).unscale(gradients, 1.0, overflow); });
}
CINNABAR_BENCH(optimizer_step_unscale, 1, 8, 64);

/// SGD by pointwise ops, one parameter and one term at a time.
void elementwise(benchmark::State& state, Device device) {
  std::vector<SgdParameter> parameters;
  for (std::int64_t p = 0; p < state.range(0); ++p) {
    parameters.push_back({values(1, device), values(2, device), values(3, device)});
  }
  const double elements = static_cast<double>(kElements * state.range(0));
  bench::measure(state, device, {20 * elements, 0}, [&] {
    const Elementwise& kernels = elementwise_on(device);
    for (SgdParameter& p : parameters) {
      kernels.unary(Unary::affine, p.momentum, 0.9, 0.0, p.momentum);
      kernels.axpy(1.0, p.grad, p.momentum);
      kernels.axpy(-1e-3, p.momentum, p.value);
    }
  });
}
CINNABAR_RIVAL(optimizer_step_sgd, elementwise, 1, 8, 64);

}  // namespace
}  // namespace cinnabar
