// Picks the way by which CUDA computes a convolution; the ways are in conv3d_direct.cu, conv3d_mma.cu,
// conv3d_fft.cu and conv3d_cudnn.cu.

#include "kernels/conv3d.hpp"

#include "engine/divide_up.hpp"
#include "kernels/conv3d_choice.hpp"
#include "kernels/conv3d_precision.hpp"
#include "kernels/cuda/conv3d_backends.hpp"
#include "kernels/smooth_number.hpp"

namespace cinnabar::cuda {
namespace {

const Conv3d& table_of(Conv3dBackend backend) {
  switch (backend) {
    case Conv3dBackend::mma:
      return conv3d_mma;
    case Conv3dBackend::fft:
      return conv3d_fft;
    case Conv3dBackend::cudnn:
      return conv3d_cudnn;
    default:
      return conv3d_direct;
  }
}

/// An operand as a backend takes it: tensor cores round what they load, the others multiply as they find it.
Tensor operand_for(Conv3dBackend backend, const Tensor& operand, Conv3dPrecision precision) {
  return backend == Conv3dBackend::mma ? operand : rounded_operand(operand, precision);
}

constexpr std::int64_t kFftVoxels =
    48 * 48 * 48;  // of larger inputs the spectra of a few images may fill the memory

double number(std::int64_t value) {
  return static_cast<double>(value);
}

/// Costs of one image, in multiply-adds at the rate of a GPU's fp32 units. Half of that rate is reached by
/// direct products and by cuBLAS, and a byte moved counts as 7: on Titan Xp to H200 the ratio is 6 to 12.
constexpr double kRate = 0.5;
constexpr double kByte = 7.0;

/// Of all taps, in tiles of 8, 16, 32 or a multiple of 64 channels; lower ones read more for every product.
double direct_cost(const Conv3dShape& s) {
  std::int64_t rows = 8;
  while (rows < s.out_channels && rows < 64) rows *= 2;
  const double tiles = number(divide_up(s.out_channels, rows)) * (number(rows) + 24.0);
  return number(s.groups * s.depth() * s.out_volume()) * tiles / kRate;
}

/// Of whole transforms: about 50 bytes a voxel and channel for padding, transforming and transposing, the
/// complex products, and the weights' spectra, made once for some images.
double fft_cost(const Conv3dShape& s) {
  constexpr double kImages = 32.0;
  double voxels = 1.0;
  for (const Conv3dAxis& axis : s.axis) voxels *= number(next_smooth_number(axis.in + axis.padding));
  const double channels = number(s.in_channels + s.out_channels),
               pairs = number(s.in_channels * s.out_channels);
  return number(s.groups) * voxels *
         (50.0 * kByte * channels + pairs * (2.0 / kRate + 24.0 * kByte / kImages));
}

/// The way that costs least, by the shapes of an image alone, so that it is the same in every batch.
Conv3dBackend by_rule(Device device, Conv3dPrecision precision, const Conv3dShape& shape) {
  if (conv3d_has_mma(device, precision)) return Conv3dBackend::mma;
  const bool by_fft = conv3d_is_eligible(Conv3dBackend::fft, device, shape) &&
                      shape.in_volume() <= kFftVoxels && fft_cost(shape) < direct_cost(shape);
  return by_fft ? Conv3dBackend::fft : Conv3dBackend::direct;
}

/// Computes a pass by run(table, a, b), where a and b are the operands as the table takes them.
template <class Run>
void compute(Conv3dPass pass, const Conv3dShape& shape, const Tensor& left, const Tensor& right,
             const Conv3dOptions& options, const Run& run) {
  const auto run_by = [&](Conv3dBackend backend) {
    run(table_of(backend), operand_for(backend, left, options.precision),
        operand_for(backend, right, options.precision));
  };
  const Conv3dBackend rule = by_rule(left.device(), options.precision, shape);
  run_by(shape.batch == 0 ? rule : choose_conv3d_backend(options, rule, pass, shape, left, run_by));
}

void forward(const Tensor& input, const Tensor& weight, const Epilogue& epilogue,
             const Conv3dOptions& options, Tensor& output) {
  compute(Conv3dPass::forward, conv3d_shape(input, weight, output, options), input, weight, options,
          [&](const Conv3d& table, const Tensor& x, const Tensor& w) {
            table.forward(x, w, epilogue, options, output);
          });
}

void backward_input(const Tensor& grad_output, const Tensor& weight, const Epilogue& epilogue,
                    const Conv3dOptions& options, Tensor& grad_input) {
  compute(Conv3dPass::backward_input, conv3d_shape(grad_input, weight, grad_output, options), grad_output,
          weight, options, [&](const Conv3d& table, const Tensor& g, const Tensor& w) {
            table.backward_input(g, w, epilogue, options, grad_input);
          });
}

void backward_weight(const Tensor& grad_output, const Tensor& input, const Conv3dOptions& options,
                     Tensor& grad_weight) {
  compute(Conv3dPass::backward_weight, conv3d_shape(input, grad_weight, grad_output, options), grad_output,
          input, options, [&](const Conv3d& table, const Tensor& g, const Tensor& x) {
            table.backward_weight(g, x, options, grad_weight);
          });
}

}  // namespace

extern const Conv3d conv3d;
const Conv3d conv3d{forward, backward_input, backward_weight};

}  // namespace cinnabar::cuda
