#include "models/quicksilver.hpp"

#include <algorithm>
#include <array>

#include "autograd/losses.hpp"
#include "bench/bench.hpp"
#include "bench/ceiling.hpp"
#include "kernels/conv3d_precision.hpp"
#include "kernels/matmul.hpp"
#include "layers/optimizer.hpp"
#include "tests/tensors.hpp"

// The whole network of Quicksilver with 64 features on patches of 15^3, batch 4 on the CPU and 64 on a GPU:
// evaluation, and a step of training (forward, L1 loss, backward, Adam). Rivals: the same with every
// convolution as matrix products on the CPU; ".tf32" and so on round the convolutions' operands. conv3d_bench
// has oneDNN's convolutions for the same layers. Operations: 2 a product of the convolutions, border taps
// included, three times as many in training. "share of sgemm" compares them with a product of 1024^2 matrices
// in the same run; transforms need fewer operations than they are counted with here and may pass 1.

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

/// How convolutions are computed.
struct Way {
  Conv3dBackend backend = Conv3dBackend::by_rule;
  Conv3dPrecision precision = Conv3dPrecision::fp32;
};

struct Setup {
  Setup(Device device, const Way& way)
      : network({.features = 64, .backend = way.backend, .precision = way.precision}),
        batch(device.is_cpu() ? 4 : 64) {
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

void forward(benchmark::State& state, Device device, const Way& way) {
  if (!conv3d_has_backend(device, way.backend)) return state.SkipWithError("not a backend of this device");
  Setup setup(device, way);
  setup.network.eval();
  const NoGrad off;
  measure(state, device, setup, 1, [&] { setup.network(setup.input); });
}

void training_step(benchmark::State& state, Device device, const Way& way) {
  if (!conv3d_has_backend(device, way.backend)) return state.SkipWithError("not a backend of this device");
  Setup setup(device, way);
  Adam adam(setup.network.named_parameters(), {1e-4});
  measure(state, device, setup, 3, [&] {
    adam.clear_gradients();
    l1_loss(setup.network(setup.input), setup.target, LossReduction::sum).backward();
    adam.step();
  });
}

bool add_all() {
  using Case = void (*)(benchmark::State&, Device, const Way&);
  std::vector<std::pair<std::string, Way>> ways{{"", {}}, {".gemm", {Conv3dBackend::gemm}}};
  for (const Conv3dPrecision precision :
       {Conv3dPrecision::tf32, Conv3dPrecision::fp16, Conv3dPrecision::bf16}) {
    ways.push_back({'.' + std::string(name_of(precision)), {Conv3dBackend::by_rule, precision}});
  }
  for (const auto& [name, run] : {std::pair<std::string, Case>{"quicksilver_forward", forward},
                                  {"quicksilver_training_step", training_step}}) {
    for (const auto& [suffix, way] : ways) {
      bench::add(name + suffix,
                 [run = run, way = way](benchmark::State& state, Device device) { run(state, device, way); },
                 {kPatch});
    }
  }
  return true;
}

const bool kListed = add_all();

}  // namespace
}  // namespace cinnabar
