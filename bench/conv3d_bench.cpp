#include "kernels/conv3d.hpp"

#include "bench/bench.hpp"
#include "tests/tensors.hpp"

// The convolutions of the Quicksilver network with 64 features on patches of 15^3 voxels, batch 4 on the CPU
// and 64 on a GPU; the last number of a name is the extent of the layer's input. The CPU's backends stand as
// rivals of what `automatic` chooses. Bytes: inputs and result once each. Operations: 2 a product, border
// taps included.

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
constexpr BackendName kBackends[] = {{"", Conv3dBackend::automatic},
                                     {".gemm", Conv3dBackend::gemm},
                                     {".fft", Conv3dBackend::fft},
                                     {".reference", Conv3dBackend::reference}};

enum class Pass { forward, backward_input, backward_weight };
constexpr const char* kPassNames[] = {"forward", "backward_input", "backward_weight"};

/// Times one pass of a layer. A transposed layer is the convolution from its output to its input.
void run(benchmark::State& state, Device device, const Layer& layer, Pass pass, Conv3dBackend backend) {
  if (!device.is_cpu() && backend != Conv3dBackend::automatic) {
    return state.SkipWithError("a backend of the CPU");
  }
  const std::int64_t batch = device.is_cpu() ? 4 : 64;
  const std::int64_t e = layer.extent;
  Conv3dOptions options;
  options.stride.fill(layer.stride);
  options.padding.fill(1);
  options.backend = backend;
  const std::int64_t rows = layer.transposed ? layer.in_channels : layer.out_channels;
  const std::int64_t columns = layer.transposed ? layer.out_channels : layer.in_channels;
  Tensor weight =
      testing::random_tensor({rows, columns, layer.kernel, layer.kernel, layer.kernel}, 2).to(device);
  const Shape near = {batch, layer.in_channels, e, e, e};
  const Shape far = layer.transposed ? conv_transpose3d_output_shape(near, weight.shape(), options, {0, 0, 0})
                                     : conv3d_output_shape(near, weight.shape(), options);
  Tensor x = testing::random_tensor(near, 1).to(device);
  Tensor y = testing::random_tensor(far, 3).to(device);
  // The convolution's own input and output, whichever side the layer calls so.
  Tensor& input = layer.transposed ? y : x;
  Tensor& output = layer.transposed ? x : y;
  const double products = static_cast<double>(output.numel() * weight.numel() / rows);
  const bench::Work work{static_cast<double>(x.bytes() + y.bytes() + weight.bytes()), 2.0 * products};
  const bool gathers = (pass == Pass::forward) != layer.transposed;
  const Conv3d& kernels = conv3d_on(device);
  bench::measure(state, device, work, [&] {
    if (pass == Pass::backward_weight) {
      kernels.backward_weight(output, input, options, weight);
    } else if (gathers) {
      kernels.forward(input, weight, {}, options, output);
    } else {
      kernels.backward_input(output, weight, {}, options, input);
    }
  });
}

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
    }
  }
  return true;
}

const bool kListed = add_all();

}  // namespace
}  // namespace cinnabar
