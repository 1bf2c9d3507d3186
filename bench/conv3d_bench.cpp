#include "kernels/conv3d.hpp"

#include "bench/bench.hpp"
#include "bench/onednn_conv3d.hpp"
#include "kernels/conv3d_precision.hpp"
#include "tests/tensors.hpp"

// The convolutions of the Quicksilver network with 64 features on patches of 15^3 voxels, batch 4 on the CPU
// and 64 on a GPU: each layer alone, where the last number of a name is the extent of its input, and
// "network", all of them one after the other as often as they occur. The named backends and oneDNN stand as
// rivals of what `by_rule` chooses; "network.tf32", "e1_conv.tf32" and so on are that with rounded operands.
// Bytes: inputs and result once each. Operations: 2 a product, border taps included.

namespace cinnabar {
namespace {

struct Layer {
  const char* name;
  std::int64_t in_channels, out_channels, kernel, stride, extent;
  bool transposed;
  int copies;  ///< in the network
};

constexpr Layer kLayers[] = {
    {"e1_in", 1, 64, 3, 1, 15, false, 2},      {"e1_conv", 64, 64, 3, 1, 15, false, 4},
    {"e1_pool", 64, 64, 2, 2, 15, false, 2},   {"e2_in", 64, 128, 3, 1, 8, false, 2},
    {"e2_conv", 128, 128, 3, 1, 8, false, 4},  {"e2_pool", 128, 128, 2, 2, 8, false, 2},
    {"d1_up", 256, 256, 2, 2, 5, true, 3},     {"d1_conv", 256, 256, 3, 1, 8, false, 6},
    {"d1_out", 256, 128, 3, 1, 8, false, 3},   {"d2_up", 128, 128, 3, 2, 8, true, 3},
    {"d2_conv", 128, 128, 3, 1, 15, false, 6}, {"d2_out", 128, 1, 3, 1, 15, false, 3},
};
constexpr std::int64_t kPatch = 15;

constexpr Conv3dBackend kBackends[] = {Conv3dBackend::by_rule, Conv3dBackend::gemm,
                                       Conv3dBackend::fft,     Conv3dBackend::direct,
                                       Conv3dBackend::cudnn,   Conv3dBackend::reference};
constexpr Conv3dPrecision kRounded[] = {Conv3dPrecision::tf32, Conv3dPrecision::fp16, Conv3dPrecision::bf16};

using Pass = Conv3dPass;
constexpr const char* kPassNames[] = {"forward", "backward_input", "backward_weight"};

/// The tensors of a layer. `input` and `output` are those of the convolution: a transposed layer is the
/// convolution from its output to its input.
struct Problem {
  Tensor input, weight, output;
  Conv3dOptions options;

  Problem(const Layer& layer, Device device) {
    const std::int64_t batch = device.is_cpu() ? 4 : 64;
    const std::int64_t e = layer.extent;
    const std::int64_t k = layer.kernel;
    options.stride.fill(layer.stride);
    options.padding.fill(1);
    const std::int64_t rows = layer.transposed ? layer.in_channels : layer.out_channels;
    const std::int64_t columns = layer.transposed ? layer.out_channels : layer.in_channels;
    const Shape near = {batch, layer.in_channels, e, e, e};
    weight = testing::random_tensor({rows, columns, k, k, k}, 2).to(device);
    const Shape far = layer.transposed
                          ? conv_transpose3d_output_shape(near, weight.shape(), options, {0, 0, 0})
                          : conv3d_output_shape(near, weight.shape(), options);
    input = testing::random_tensor(layer.transposed ? far : near, 1).to(device);
    output = testing::random_tensor(layer.transposed ? near : far, 3).to(device);
  }

  bench::Work work() const {
    const auto bytes = static_cast<double>(input.bytes() + output.bytes() + weight.bytes());
    return {bytes, 2.0 * static_cast<double>(output.numel() * weight.numel() / weight.shape(0))};
  }

  /// Runs a pass and returns what it wrote.
  const Tensor& run(Pass pass) {
    const Conv3d& kernels = conv3d_on(input.device());
    switch (pass) {
      case Pass::forward:
        kernels.forward(input, weight, {}, options, output);
        return output;
      case Pass::backward_input:
        kernels.backward_input(output, weight, {}, options, input);
        return input;
      default:
        kernels.backward_weight(output, input, options, weight);
        return weight;
    }
  }
};

/// The pass of the convolution that is a pass of the layer.
Pass convolution_pass(const Layer& layer, Pass pass) {
  if (!layer.transposed || pass == Pass::backward_weight) return pass;
  return pass == Pass::forward ? Pass::backward_input : Pass::forward;
}

bool is_missing(benchmark::State& state, Device device, Conv3dBackend backend) {
  if (conv3d_has_backend(device, backend)) return false;
  state.SkipWithError("not a backend of this device and build");
  return true;
}

void run_layer(benchmark::State& state, Device device, const Layer& layer, Pass pass, Conv3dBackend backend,
               Conv3dPrecision precision = Conv3dPrecision::fp32) {
  if (is_missing(state, device, backend)) return;
  Problem problem(layer, device);
  problem.options.backend = backend;
  problem.options.precision = precision;
  bench::measure(state, device, problem.work(), [&] { problem.run(convolution_pass(layer, pass)); });
}

/// One of all convolutions of the network.
struct Step {
  Step(const Layer& layer, Pass wanted, Device device)
      : pass(convolution_pass(layer, wanted)), problem(layer, device) {}
  Pass pass;
  Problem problem;
};

std::vector<Step> network(Pass pass, Device device) {
  std::vector<Step> steps;
  for (const Layer& layer : kLayers) {
    for (int copy = 0; copy < layer.copies; ++copy) steps.emplace_back(layer, pass, device);
  }
  return steps;
}

bench::Work work_of(const std::vector<Step>& steps) {
  bench::Work all;
  for (const Step& step : steps) {
    const bench::Work work = step.problem.work();
    all.bytes += work.bytes;
    all.flops += work.flops;
  }
  return all;
}

void run_network(benchmark::State& state, Device device, Pass pass, Conv3dBackend backend,
                 Conv3dPrecision precision = Conv3dPrecision::fp32) {
  if (is_missing(state, device, backend)) return;
  std::vector<Step> steps = network(pass, device);
  for (Step& step : steps) {
    step.problem.options.backend = backend;
    step.problem.options.precision = precision;
  }
  bench::measure(state, device, work_of(steps), [&] {
    for (Step& step : steps) step.problem.run(step.pass);
  });
}

#ifdef CINNABAR_HAS_ONEDNN
bench::OnednnConv3d onednn_of(const Problem& problem, Pass pass) {
  return {pass, problem.input, problem.weight, problem.output, problem.options};
}

void run_layer_by_onednn(benchmark::State& state, Device device, const Layer& layer, Pass pass) {
  if (!device.is_cpu()) return state.SkipWithError("a rival of the CPU");
  Problem problem(layer, device);
  const Pass wanted = convolution_pass(layer, pass);
  bench::OnednnConv3d rival = onednn_of(problem, wanted);
  bench::measure(state, device, problem.work(), [&] { rival.run(); });
  if (testing::relative_error(rival.result(), problem.run(wanted)) > 1e-5) {
    state.SkipWithError("oneDNN's result is another one");
  }
}

void run_network_by_onednn(benchmark::State& state, Device device, Pass pass) {
  if (!device.is_cpu()) return state.SkipWithError("a rival of the CPU");
  const std::vector<Step> steps = network(pass, device);
  std::vector<bench::OnednnConv3d> rivals;
  for (const Step& step : steps) rivals.push_back(onednn_of(step.problem, step.pass));
  bench::measure(state, device, work_of(steps), [&] {
    for (bench::OnednnConv3d& rival : rivals) rival.run();
  });
}
#endif

/// The part of a name that makes a benchmark a rival.
std::string suffix_of(Conv3dBackend backend) {
  return backend == Conv3dBackend::by_rule ? "" : '.' + std::string(name_of(backend));
}

void add_layer(const std::string& name, const Layer& layer, Pass pass) {
  for (const Conv3dBackend backend : kBackends) {
    // Transforms need stride 1; the plain loops take seconds except on the smallest layer.
    if (backend == Conv3dBackend::fft && layer.stride != 1) continue;
    if (backend == Conv3dBackend::reference && layer.in_channels > 1) continue;
    bench::add(name + suffix_of(backend),
               [layer, pass, backend](benchmark::State& state, Device device) {
                 run_layer(state, device, layer, pass, backend);
               },
               {layer.extent});
  }
  for (const Conv3dPrecision precision : kRounded) {
    bench::add(name + '.' + std::string(name_of(precision)),
               [layer, pass, precision](benchmark::State& state, Device device) {
                 run_layer(state, device, layer, pass, Conv3dBackend::by_rule, precision);
               },
               {layer.extent});
  }
#ifdef CINNABAR_HAS_ONEDNN
  bench::add(name + ".onednn",
             [layer, pass](benchmark::State& state, Device device) {
               run_layer_by_onednn(state, device, layer, pass);
             },
             {layer.extent});
#endif
}

void add_network(const std::string& name, Pass pass) {
  for (const Conv3dBackend backend : kBackends) {
    if (backend == Conv3dBackend::fft || backend == Conv3dBackend::reference) continue;
    bench::add(name + suffix_of(backend),
               [pass, backend](benchmark::State& state, Device device) {
                 run_network(state, device, pass, backend);
               },
               {kPatch});
  }
  for (const Conv3dPrecision precision : kRounded) {
    bench::add(name + '.' + std::string(name_of(precision)),
               [pass, precision](benchmark::State& state, Device device) {
                 run_network(state, device, pass, Conv3dBackend::by_rule, precision);
               },
               {kPatch});
  }
#ifdef CINNABAR_HAS_ONEDNN
  bench::add(name + ".onednn",
             [pass](benchmark::State& state, Device device) { run_network_by_onednn(state, device, pass); },
             {kPatch});
#endif
}

bool add_all() {
  for (const Pass pass : {Pass::forward, Pass::backward_input, Pass::backward_weight}) {
    const std::string name = std::string("conv3d_") + kPassNames[static_cast<int>(pass)] + '_';
    for (const Layer& layer : kLayers) add_layer(name + layer.name, layer, pass);
    add_network(name + "network", pass);
  }
  return true;
}

const bool kListed = add_all();

}  // namespace
}  // namespace cinnabar
