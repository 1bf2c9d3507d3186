#include "kernels/conv3d.hpp"

#include "kernels/conv3d_choice.hpp"
#include "kernels/conv3d_precision.hpp"
#include "kernels/cpu/conv3d_backends.hpp"
#include "kernels/cpu/epilogue_row.hpp"
#include "kernels/parallel.hpp"

namespace cinnabar::cpu {

/// The definition as loops. Sums run in f64 for both dtypes, so that float results are right to one rounding.
namespace conv3d_reference {

/// Calls visit(tap, input offset) for the taps through which output position (d, h, w) reads inside the
/// input.
template <class Visit>
void for_each_tap(const Conv3dShape& s, std::int32_t d, std::int32_t h, std::int32_t w, const Visit& visit) {
  std::int64_t tap = 0;
  for (std::int32_t kd = 0; kd < s.axis[0].kernel; ++kd) {
    const std::int64_t z = s.axis[0].source(d, kd);
    for (std::int32_t kh = 0; kh < s.axis[1].kernel; ++kh) {
      const std::int64_t y = s.axis[1].source(h, kh);
      for (std::int32_t kw = 0; kw < s.axis[2].kernel; ++kw, ++tap) {
        const std::int64_t x = s.axis[2].source(w, kw);
        const bool inside =
            z >= 0 && z < s.axis[0].in && y >= 0 && y < s.axis[1].in && x >= 0 && x < s.axis[2].in;
        if (inside) visit(tap, (z * s.axis[1].in + y) * s.axis[2].in + x);
      }
    }
  }
}

/// Calls visit(position, tap, input offset) for every product of one input and one output channel.
template <class Visit>
void for_each_product(const Conv3dShape& s, const Visit& visit) {
  std::int64_t position = 0;
  for (std::int32_t d = 0; d < s.axis[0].out; ++d) {
    for (std::int32_t h = 0; h < s.axis[1].out; ++h) {
      for (std::int32_t w = 0; w < s.axis[2].out; ++w, ++position) {
        for_each_tap(s, d, h, w, [&](std::int64_t tap, std::int64_t voxel) { visit(position, tap, voxel); });
      }
    }
  }
}

template <class T>
void store(const std::vector<double>& sum, T* values) {
  for (std::size_t i = 0; i < sum.size(); ++i) values[i] = static_cast<T>(sum[i]);
}

template <class T>
void forward(const Conv3dShape& s, const T* input, const T* weight, const EpilogueMath<T>& epilogue,
             T* output) {
  const std::int64_t channels = s.groups * s.out_channels;
  parallel_for(s.batch * channels, 1, [&](std::int64_t first, std::int64_t last) {
    std::vector<double> sum(static_cast<std::size_t>(s.out_volume()));
    for (std::int64_t image = first; image < last; ++image) {
      const std::int64_t n = image / channels, o = image % channels, group = o / s.out_channels;
      std::fill(sum.begin(), sum.end(), 0.0);
      for (std::int64_t c = 0; c < s.in_channels; ++c) {
        const T* from = input + ((n * s.groups + group) * s.in_channels + c) * s.in_volume();
        const T* taps = weight + (o * s.in_channels + c) * s.taps();
        for_each_product(s, [&](std::int64_t position, std::int64_t tap, std::int64_t voxel) {
          sum[static_cast<std::size_t>(position)] +=
              static_cast<double>(taps[tap]) * static_cast<double>(from[voxel]);
        });
      }
      T* values = output + image * s.out_volume();
      store(sum, values);
      epilogue_row(epilogue, o, image * s.out_volume(), s.out_volume(), values, values);
    }
  });
}

template <class T>
void backward_input(const Conv3dShape& s, const T* grad_output, const T* weight,
                    const EpilogueMath<T>& epilogue, T* grad_input) {
  const std::int64_t channels = s.groups * s.in_channels;
  parallel_for(s.batch * channels, 1, [&](std::int64_t first, std::int64_t last) {
    std::vector<double> sum(static_cast<std::size_t>(s.in_volume()));
    for (std::int64_t image = first; image < last; ++image) {
      const std::int64_t n = image / channels, channel = image % channels;
      const std::int64_t group = channel / s.in_channels, c = channel % s.in_channels;
      std::fill(sum.begin(), sum.end(), 0.0);
      for (std::int64_t o = group * s.out_channels; o < (group + 1) * s.out_channels; ++o) {
        const T* from = grad_output + (n * s.groups * s.out_channels + o) * s.out_volume();
        const T* taps = weight + (o * s.in_channels + c) * s.taps();
        for_each_product(s, [&](std::int64_t position, std::int64_t tap, std::int64_t voxel) {
          sum[static_cast<std::size_t>(voxel)] +=
              static_cast<double>(taps[tap]) * static_cast<double>(from[position]);
        });
      }
      T* values = grad_input + image * s.in_volume();
      store(sum, values);
      epilogue_row(epilogue, channel, image * s.in_volume(), s.in_volume(), values, values);
    }
  });
}

template <class T>
void backward_weight(const Conv3dShape& s, const T* grad_output, const T* input, T* grad_weight) {
  const std::int64_t channels = s.groups * s.out_channels;
  parallel_for(channels * s.in_channels, 1, [&](std::int64_t first, std::int64_t last) {
    std::vector<double> sum(static_cast<std::size_t>(s.taps()));
    for (std::int64_t pair = first; pair < last; ++pair) {
      const std::int64_t o = pair / s.in_channels, c = pair % s.in_channels, group = o / s.out_channels;
      std::fill(sum.begin(), sum.end(), 0.0);
      for (std::int64_t n = 0; n < s.batch; ++n) {
        const T* grad = grad_output + (n * channels + o) * s.out_volume();
        const T* from = input + ((n * s.groups + group) * s.in_channels + c) * s.in_volume();
        for_each_product(s, [&](std::int64_t position, std::int64_t tap, std::int64_t voxel) {
          sum[static_cast<std::size_t>(tap)] +=
              static_cast<double>(grad[position]) * static_cast<double>(from[voxel]);
        });
      }
      store(sum, grad_weight + pair * s.taps());
    }
  });
}

CINNABAR_CONV3D_INSTANTIATE(float);
CINNABAR_CONV3D_INSTANTIATE(double);

}  // namespace conv3d_reference

namespace {

constexpr const char* kOp = "conv3d";
constexpr std::int64_t kFftVoxels = 32 * 32 * 32;  // the spectra of larger inputs would take much memory
constexpr double kImages =
    4.0;  // in a batch, as the rule sees it: bits must not depend on how many there are

double number(std::int64_t value) {
  return static_cast<double>(value);
}

/// About how many nanoseconds a core with AVX-512 takes for kImages: columns of the inputs are unfolded, then
/// multiplied.
double gemm_cost(const Conv3dShape& s) {
  const double columns = kImages * number(s.out_volume()) * number(s.groups * s.depth());
  return columns * (0.6 + 0.02 * number(s.out_channels));
}

/// The same: sums along every line of both images, then weights and products of every frequency. Channels
/// come in blocks of 16.
double fft_cost(const Conv3dShape& s) {
  const auto padded = [](std::int64_t channels) { return number((channels + 15) / 16 * 16); };
  double frequencies = 0.5;
  double lines = 0;
  for (const Conv3dAxis& axis : s.axis) {
    const double extent = number(std::int64_t{axis.in} + axis.padding);
    frequencies *= extent;
    lines += extent;
  }
  const double images = kImages * (padded(s.in_channels) + padded(s.out_channels));
  const double products = padded(s.out_channels) * number(s.in_channels) * (0.25 + 0.11 * kImages);
  return number(s.groups) * frequencies * (0.05 * lines * images + products);
}

/// The same: blocks of 8, 4, 2 and 1 output channels, each with three registers of 16 positions of a padded
/// plane at a time while there are as many, then with one, where products wait for each other.
double direct_cost(const Conv3dShape& s) {
  const auto& [depth, height, width] = s.axis;
  const std::int64_t plane = std::int64_t{height.out} * (width.out + width.kernel - 1);
  const std::int64_t registers = (plane + 15) / 16, singles = registers % 3;
  const double steps = number(registers - singles) + 1.8 * number(singles);
  const std::int64_t rest = s.out_channels % 8;
  const std::int64_t blocks = s.out_channels / 8 + rest / 4 + rest % 4 / 2 + rest % 2;
  const double products = 1.2 * number(blocks) + 0.42 * number(s.out_channels);
  return kImages * number(s.groups * s.depth() * depth.out) * steps * products;
}

Conv3dBackend by_rule(const Conv3dShape& shape) {
  const auto suits = [&](Conv3dBackend backend) { return conv3d_is_eligible(backend, Device::cpu(), shape); };
  Conv3dBackend best = Conv3dBackend::gemm;
  double least = gemm_cost(shape);
  const auto consider = [&](Conv3dBackend backend, double cost) {
    if (cost >= least) return;
    best = backend;
    least = cost;
  };
  if (suits(Conv3dBackend::direct)) consider(Conv3dBackend::direct, direct_cost(shape));
  if (suits(Conv3dBackend::fft) && shape.in_volume() <= kFftVoxels) {
    consider(Conv3dBackend::fft, fft_cost(shape));
  }
  return best;
}

/// Computes a pass by run(backend, a, b), where a and b are the operands as they are multiplied: what they
/// are rounded to is exact in f32, and so every backend computes every precision.
template <class Run>
void compute(Conv3dPass pass, const Conv3dShape& shape, const Tensor& left, const Tensor& right,
             const Conv3dOptions& options, const Run& run) {
  const Tensor a = rounded_operand(left, options.precision), b = rounded_operand(right, options.precision);
  const auto run_by = [&](Conv3dBackend backend) { run(backend, a, b); };
  run_by(choose_conv3d_backend(options, by_rule(shape), pass, shape, left, run_by));
}

/// The function of a backend out of those of all.
template <class Function>
Function* pick(Conv3dBackend backend, Function* reference, Function* direct, Function* gemm, Function* fft) {
  switch (backend) {
    case Conv3dBackend::reference:
      return reference;
    case Conv3dBackend::direct:
      return direct;
    case Conv3dBackend::fft:
      return fft;
    default:
      return gemm;
  }
}

void forward(const Tensor& input, const Tensor& weight, const Epilogue& epilogue,
             const Conv3dOptions& options, Tensor& output) {
  const Conv3dShape shape = conv3d_shape(input, weight, output, options);
  check_epilogue(epilogue, output);
  if (output.numel() == 0) return;
  dispatch_floating(kOp, input.dtype(), [&]<class T>(T) {
    compute(Conv3dPass::forward, shape, input, weight, options,
            [&](Conv3dBackend backend, const Tensor& x, const Tensor& w) {
              pick(backend, conv3d_reference::forward<T>, conv3d_direct::forward<T>, conv3d_gemm::forward<T>,
                   conv3d_fft::forward<T>)(shape, x.data<T>(), w.data<T>(), epilogue_math<T>(epilogue),
                                           output.data<T>());
            });
  });
}

void backward_input(const Tensor& grad_output, const Tensor& weight, const Epilogue& epilogue,
                    const Conv3dOptions& options, Tensor& grad_input) {
  const Conv3dShape shape = conv3d_shape(grad_input, weight, grad_output, options);
  check_epilogue(epilogue, grad_input);
  if (grad_input.numel() == 0) return;
  dispatch_floating(kOp, weight.dtype(), [&]<class T>(T) {
    compute(Conv3dPass::backward_input, shape, grad_output, weight, options,
            [&](Conv3dBackend backend, const Tensor& g, const Tensor& w) {
              pick(backend, conv3d_reference::backward_input<T>, conv3d_direct::backward_input<T>,
                   conv3d_gemm::backward_input<T>, conv3d_fft::backward_input<T>)(
                  shape, g.data<T>(), w.data<T>(), epilogue_math<T>(epilogue), grad_input.data<T>());
            });
  });
}

void backward_weight(const Tensor& grad_output, const Tensor& input, const Conv3dOptions& options,
                     Tensor& grad_weight) {
  const Conv3dShape shape = conv3d_shape(input, grad_weight, grad_output, options);
  if (shape.batch == 0) return grad_weight.fill(0.0);
  dispatch_floating(kOp, input.dtype(), [&]<class T>(T) {
    compute(Conv3dPass::backward_weight, shape, grad_output, input, options,
            [&](Conv3dBackend backend, const Tensor& g, const Tensor& x) {
              pick(backend, conv3d_reference::backward_weight<T>, conv3d_direct::backward_weight<T>,
                   conv3d_gemm::backward_weight<T>,
                   conv3d_fft::backward_weight<T>)(shape, g.data<T>(), x.data<T>(), grad_weight.data<T>());
            });
  });
}

}  // namespace

extern const Conv3d conv3d;
const Conv3d conv3d{forward, backward_input, backward_weight};

}  // namespace cinnabar::cpu
