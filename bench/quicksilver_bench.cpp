#include "models/quicksilver.hpp"

#include <algorithm>
#include <array>

#include "autograd/losses.hpp"
#include "bench/bench.hpp"
#include "bench/ceiling.hpp"
#include "kernels/matmul.hpp"
#include "layers/optimizer.hpp"
#include "tests/tensors.hpp"

// The whole network of Quicksilver with 64 features on patches of 15^3, batch 4 on the CPU and 64 on a GPU:
// evaluation, and a step of training (forward, L1 loss, backward, Adam). Rivals: the same with every
// convolution as matrix products on the CPU; conv3d_bench has oneDNN's convolutions for the same layers.
// Operations: 2 a product of the convolutions, border taps included, three times as many in training. "share
// of sgemm" compares them with a product of 1024^2 matrices in the same run; transforms need fewer
// operations than they are counted with here and may pass 1.

namespace cinnabar {
namespace {

constexpr std::int64_t kPatch = 15;

/// Operations per patch: each weight of a convolution meets each position of its smaller side once.
double operations(const Quicksilver& network) {
  // Positions of a patch's side by the block's number: the encoders' halve, the decoders' double.
  constexpr std::array<std::int64_t, 3> kExtents{15, 8, 5};
  double products = 0;
  for (const auto& [name, parameter] : network.named_parameters()) {
    if (parameter.shape().rank() != 5) continue;
    const bool decoder = name.starts_with("decoder");
    const std::size_t level = name[name.find('.') - 1] == '1' ? 0 : 1;
    const bool resampling = name.find("pooling") != std::string::npos;
    const std::size_t depth = decoder ? 1 - level + (resampling ? 1 : 0) : level + (resampling ? 1 : 0);
    const std::int64_t side = kExtents[depth];
    products += static_cast<double>(parameter.value().numel() * side * side * side);
  }
  return 2 * products;
}

/// Operations a second of the library's matrix product, the best of a few.
double sgemm_ceiling(Device device) {
  constexpr std::int64_t kExtent = 1024;
  const Tensor a = testing::random_tensor({kExtent, kExtent}, 1).to(device);
  Tensor c = Tensor::empty_like(a);
  double seconds = 1e9;
  for (int repetition = 0; repetition < 5; ++repetition) {
    seconds = std::min(seconds,
                       bench::seconds_of(device, [&] { matmul_on(device).forward(a, false, a, false, c); }));
  }
  return 2.0 * kExtent * kExtent * kExtent / seconds;
}

struct Setup {
  Setup(Device device, Conv3dBackend backend)
      : network({.features = 64, .backend = backend}), batch(device.is_cpu() ? 4 : 64) {
    network.to(device);
    input = Variable(testing::random_tensor({batch, 2, kPatch, kPatch, kPatch}, 1).to(device));
    target = Variable(testing::random_tensor({batch, 3, kPatch, kPatch, kPatch}, 2).to(device));
  }
  Quicksilver network;
  std::int64_t batch;
  Variable input, target;
};

void measure(benchmark::State& state, Device device, const Setup& setup, int passes,
             const std::function<void()>& run) {
  const double flops = passes * operations(setup.network) * static_cast<double>(setup.batch);
  bench::measure(state, device, {0, flops}, run);
  state.counters["share of sgemm"] = 1e9 * state.counters["GFLOP/s"] / sgemm_ceiling(device);
}

void forward(benchmark::State& state, Device device, Conv3dBackend backend) {
  if (!conv3d_has_backend(device, backend)) return state.SkipWithError("not a backend of this device");
  Setup setup(device, backend);
  setup.network.eval();
  const NoGrad off;
  measure(state, device, setup, 1, [&] { setup.network(setup.input); });
}

void training_step(benchmark::State& state, Device device, Conv3dBackend backend) {
  if (!conv3d_has_backend(device, backend)) return state.SkipWithError("not a backend of this device");
  Setup setup(device, backend);
  Adam adam(setup.network.named_parameters(), {1e-4});
  measure(state, device, setup, 3, [&] {
    adam.clear_gradients();
    l1_loss(setup.network(setup.input), setup.target, LossReduction::sum).backward();
    adam.step();
  });
}

bool add_all() {
  using Case = void (*)(benchmark::State&, Device, Conv3dBackend);
  for (const auto& [name, run] : {std::pair<std::string, Case>{"quicksilver_forward", forward},
                                  {"quicksilver_training_step", training_step}}) {
    for (const auto& [suffix, backend] : {std::pair<std::string, Conv3dBackend>{"", Conv3dBackend::by_rule},
                                          {".gemm", Conv3dBackend::gemm}}) {
      bench::add(name + suffix,
                 [run = run, backend = backend](benchmark::State& state, Device device) {
                   run(state, device, backend);
                 },
                 {kPatch});
    }
  }
  return true;
}

const bool kListed = add_all();

}  // namespace
}  // namespace cinnabar
