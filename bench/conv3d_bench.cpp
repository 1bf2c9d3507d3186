#include "kernels/conv3d.hpp"

#include "bench/bench.hpp"
#include "bench/onednn_conv3d.hpp"
#include "tests/tensors.hpp"

// The convolutions of the Quicksilver network with 64 features on patches of 15^3 voxels, batch 4 on the CPU
// and 64 on a GPU; the last number of a name is the extent of the layer's input. The CPU's backends and
// oneDNN stand as rivals of what `by_rule` chooses. Bytes: inputs and result once each. Operations: 2 a
// product, border taps included.

namespace cinnabar {
namespace {

struct Layer {
  const char* name;
  std::int64_t in_channels, out_channels, kernel, stride, extent;
  bool transposed;
};

constexpr Layer kLayers[] = {
    {"e1_in", 1, 64, 3, 1, 15, false},      {"e1_conv", 64, 64, 3, 1, 15, false},
    {"e1_pool", 64, 64, 2, 2, 15, false},   {"e2_in", 64, 128, 3, 1, 8, false},
    {"e2_conv", 128, 128, 3, 1, 8, false},  {"e2_pool", 128, 128, 2, 2, 8, false},
    {"d1_up", 256, 256, 2, 2, 5, true},     {"d1_conv", 256, 256, 3, 1, 8, false},
    {"d1_out", 256, 128, 3, 1, 8, false},   {"d2_up", 128, 128, 3, 2, 8, true},
    {"d2_conv", 128, 128, 3, 1, 15, false}, {"d2_out", 128, 1, 3, 1, 15, false},
};

struct BackendName {
  const char* name;
  Conv3dBackend backend;
};
constexpr BackendName kBackends[] = {{"", Conv3dBackend::by_rule},
                                     {".gemm", Conv3dBackend::gemm},
                                     {".fft", Conv3dBackend::fft},
                                     {".reference", Conv3dBackend::reference}};

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

void run(benchmark::State& state, Device device, const Layer& layer, Pass pass, Conv3dBackend backend) {
  if (!device.is_cpu() && backend != Conv3dBackend::by_rule) {
    return state.SkipWithError("a backend of the CPU");
  }
  Problem problem(layer, device);
  problem.options.backend = backend;
  bench::measure(state, device, problem.work(), [&] { problem.run(convolution_pass(layer, pass)); });
}

#ifdef CINNABAR_HAS_ONEDNN
void run_onednn(benchmark::State& state, Device device, const Layer& layer, Pass pass) {
  if (!device.is_cpu()) return state.SkipWithError("a rival of the CPU");
  Problem problem(layer, device);
  const Pass wanted = convolution_pass(layer, pass);
  bench::OnednnConv3d rival(wanted, problem.input, problem.weight, problem.output, problem.options);
  bench::measure(state, device, problem.work(), [&] { rival.run(); });
  if (testing::relative_error(rival.result(), problem.run(wanted)) > 1e-5) {
    state.SkipWithError("oneDNN's result is another one");
  }
}
#endif

bool add_all() {
  for (const Layer& layer : kLayers) {
    for (const Pass pass : {Pass::forward, Pass::backward_input, Pass::backward_weight}) {
      for (const BackendName& way : kBackends) {
        // Transforms need stride 1; the plain loops take seconds except on the smallest layer.
        if (way.backend == Conv3dBackend::fft && layer.stride != 1) continue;
        if (way.backend == Conv3dBackend::reference && layer.in_channels > 1) continue;
        const std::string name =
            std::string("conv3d_") + kPassNames[static_cast<int>(pass)] + '_' + layer.name + way.name;
        bench::add(name,
                   [layer, pass, way](benchmark::State& state, Device device) {
                     run(state, device, layer, pass, way.backend);
                   },
                   {layer.extent});
      }
#ifdef CINNABAR_HAS_ONEDNN
      bench::add(
          std::string("conv3d_") + kPassNames[static_cast<int>(pass)] + '_' + layer.name + ".onednn",
          [layer, pass](benchmark::State& state, Device device) { run_onednn(state, device, layer, pass); },
          {layer.extent});
#endif
    }
  }
  return true;
}

const bool kListed = add_all();

}  // namespace
}  // namespace cinnabar
