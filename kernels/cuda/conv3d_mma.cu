// Convolution on tensor cores: operands rounded to tf32, fp16 or bf16, sums in f32.
// Work split: operands are packed once, rounded, channels last, with a halo of zeros (conv3d_packed.cuh). A
// block of 128 threads then owns 128 positions x 128 (or 64, 32, 16) channels (conv3d_product.cuh), for
// backward_weight 128 pairs of input channel and tap x 128 output channels over a part of the positions
// (conv3d_product_weight.cuh), and goes down the depth by 64 bytes in a ring of three stages (48 KB). With
// fewer than 8 channels read, operands are gathered as in conv3d_direct.cu, in tiles of 64 (32, 16) x 128
// that go down the depth by 16 operands (conv3d_mma.cuh, two stages of 26 KB in tf32). Limiting resource:
// shared memory's bandwidth, 48 KB moved for the 256 mma instructions of a stage, just ahead of the tensor
// cores; of the gather finding operands, about 24 loads of floats for 32.

#include "kernels/cuda/conv3d_mma.cuh"

#include "kernels/cuda/conv3d_backends.hpp"
#include "kernels/cuda/conv3d_product_launch.cuh"

namespace cinnabar::cuda {
namespace {

template <class Operand, int kTileRows>
TileKernels tiles() {
  return {kTileRows, kMmaDepth, conv3d_gather_mma_kernel<Operand, kTileRows>,
          conv3d_backward_weight_mma_kernel<Operand, kTileRows>};
}

/// The lowest tile that holds all rows, or the highest there is.
template <class Operand>
TileKernels tiles_for(std::int64_t rows) {
  if (rows <= 16) return tiles<Operand, 16>();
  if (rows <= 32) return tiles<Operand, 32>();
  return tiles<Operand, 64>();
}

/// Calls fn with a value-initialised operand of what the precision rounds to. Throws Error in fp32.
template <class Function>
void dispatch_mma(const Conv3dOptions& options, const Function& fn) {
  dispatch_operand(options.precision, [&](auto operand) {
    if constexpr (std::is_same_v<decltype(operand), float>) {
      fail(kOp, "tensor cores do not multiply in fp32");
    } else {
      fn(operand);
    }
  });
}

void forward(const Tensor& input, const Tensor& weight, const Epilogue& epilogue,
             const Conv3dOptions& options, Tensor& output) {
  dispatch_mma(options, [&](auto operand) {
    using Operand = decltype(operand);
    if (packed_forward<Operand>(input, weight, epilogue, options, output)) return;
    tiled_forward(tiles_for<Operand>, input, weight, epilogue, options, output);
  });
}

void backward_input(const Tensor& grad_output, const Tensor& weight, const Epilogue& epilogue,
                    const Conv3dOptions& options, Tensor& grad_input) {
  dispatch_mma(options, [&](auto operand) {
    using Operand = decltype(operand);
    if (packed_backward_input<Operand>(grad_output, weight, epilogue, options, grad_input)) return;
    tiled_backward_input(tiles_for<Operand>, grad_output, weight, epilogue, options, grad_input);
  });
}

void backward_weight(const Tensor& grad_output, const Tensor& input, const Conv3dOptions& options,
                     Tensor& grad_weight) {
  dispatch_mma(options, [&](auto operand) {
    using Operand = decltype(operand);
    if (packed_backward_weight<Operand>(grad_output, input, options, grad_weight)) return;
    tiled_backward_weight(tiles_for<Operand>, grad_output, input, options, grad_weight);
  });
}

/// The architecture that the kernels in use on a device were compiled for; it may be below the device's own.
template <class Operand>
int architecture_of_kernels([[maybe_unused]] Device device) {
#ifdef CINNABAR_EMULATED
  return std::numeric_limits<int>::max();
#else
  const DeviceScope scope(device);
  cudaFuncAttributes attributes{};
  CINNABAR_CUDA(cudaFuncGetAttributes(&attributes, conv3d_gather_mma_kernel<Operand, 64>));
  return attributes.ptxVersion;
#endif
}

}  // namespace

const Conv3d conv3d_mma{forward, backward_input, backward_weight};

bool conv3d_has_mma(Device device, Conv3dPrecision precision) {
  bool found = false;
  dispatch_operand(precision, [&](auto operand) {
    using Operand = decltype(operand);
    if constexpr (!std::is_same_v<Operand, float>) {
      found = mma_is_compiled<Operand>(architecture_of_kernels<Operand>(device));
    }
  });
  return found;
}

}  // namespace cinnabar::cuda
