// Direct convolution as implicit matrix products; no columns are written to memory.
// Work split: forward and backward_input gather. A block owns 64 channels x 128 positions of what is written
// and walks the products' depth, taps times channels read, 8 at a time; a position computes where a tap reads
// and takes a zero beyond the border. backward_input runs once per residue of the position modulo the stride,
// so that every tap of a launch exists and no product with a hole is computed. In backward_weight a block
// owns 64 output channels x 128 weights (input channel and tap) and sums over a range of positions of all
// images; a second kernel adds the ranges' sums in order. Weights are packed first, channels written fastest,
// for loads of whole rows. Shared memory: two stages of both tiles, 12.8 KB (14.8 KB for weights); the next
// stage is loaded while this one is multiplied, so one barrier a stage. Launch: 128 threads with 8 x 8
// results each; up to 32, 16 and 8 channels take lower blocks, of 32, 16 and 8 x 128. Limiting resource: fp32
// arithmetic; a thread reads 16 floats from shared memory for 64 multiply-adds.

#include "kernels/conv3d.hpp"

#include "kernels/cuda/conv3d_backends.hpp"
#include "kernels/cuda/conv3d_launch.cuh"

namespace cinnabar::cuda {
namespace {

template <int kRowsEach>
TileKernels tiles() {
  return {kRows<kRowsEach>, kDepth, conv3d_gather_tile_kernel<kRowsEach>,
          conv3d_backward_weight_tile_kernel<kRowsEach>};
}

/// The lowest tile that holds all rows, or the highest there is.
TileKernels tiles_for(std::int64_t rows) {
  if (rows <= kRows<1>) return tiles<1>();
  if (rows <= kRows<2>) return tiles<2>();
  if (rows <= kRows<4>) return tiles<4>();
  return tiles<8>();
}

void forward(const Tensor& input, const Tensor& weight, const Epilogue& epilogue,
             const Conv3dOptions& options, Tensor& output) {
  tiled_forward(tiles_for, input, weight, epilogue, options, output);
}

void backward_input(const Tensor& grad_output, const Tensor& weight, const Epilogue& epilogue,
                    const Conv3dOptions& options, Tensor& grad_input) {
  tiled_backward_input(tiles_for, grad_output, weight, epilogue, options, grad_input);
}

void backward_weight(const Tensor& grad_output, const Tensor& input, const Conv3dOptions& options,
                     Tensor& grad_weight) {
  tiled_backward_weight(tiles_for, grad_output, input, options, grad_weight);
}

}  // namespace

const Conv3d conv3d_direct{forward, backward_input, backward_weight};

}  // namespace cinnabar::cuda
