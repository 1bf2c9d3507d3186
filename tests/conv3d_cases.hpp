#pragma once

#include <gtest/gtest.h>

#include <array>
#include <ostream>
#include <vector>

#include "kernels/conv3d_choice.hpp"
#include "kernels/conv3d_precision.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {

struct ConvCase {
  Shape input, weight;
  Conv3dOptions options;
};

inline std::ostream& operator<<(std::ostream& out, const ConvCase& c) {
  out << c.input << " * " << c.weight << ", groups " << c.options.groups << ", stride, padding, dilation";
  for (std::size_t i = 0; i < 3; ++i) {
    out << ' ' << c.options.stride[i] << c.options.padding[i] << c.options.dilation[i];
  }
  return out << ", backend " << name_of(c.options.backend) << ", " << name_of(c.options.precision);
}

inline ConvCase with_backend(ConvCase c, Conv3dBackend backend) {
  c.options.backend = backend;
  return c;
}

inline ConvCase with_precision(ConvCase c, Conv3dPrecision precision) {
  c.options.precision = precision;
  return c;
}

/// Odd extents; strides that leave voxels unread; kernels as large as the image and smaller than the stride.
inline const std::vector<ConvCase> kCases = {
    {{2, 3, 5, 7, 11}, {4, 3, 3, 3, 3}, {{1, 1, 1}, {1, 1, 1}, {1, 1, 1}, 1}},
    {{1, 1, 4, 1, 3}, {1, 1, 1, 1, 1}, {}},
    {{2, 6, 7, 5, 6}, {9, 2, 2, 2, 2}, {{2, 2, 2}, {1, 1, 1}, {1, 1, 1}, 3}},
    {{1, 4, 9, 8, 7}, {6, 2, 3, 2, 1}, {{2, 1, 3}, {1, 0, 2}, {2, 3, 1}, 2}},
    {{2, 2, 7, 6, 9}, {3, 2, 3, 3, 3}, {{2, 3, 4}, {2, 1, 0}, {3, 2, 2}, 1}},
    {{1, 3, 5, 5, 5}, {2, 3, 2, 1, 2}, {{3, 4, 3}, {0, 0, 1}, {1, 1, 1}, 1}},
    {{1, 2, 3, 4, 3}, {2, 2, 1, 1, 2}, {{1, 1, 1}, {2, 1, 3}, {1, 1, 1}, 1}},
    {{3, 5, 3, 4, 5}, {5, 1, 3, 4, 5}, {{1, 1, 1}, {0, 2, 3}, {1, 1, 1}, 5}},
};

/// Sizes at which tiles of 16, 32, 64 and 128, stages of 8, 16 and 32, blocks of positions, lanes, chunks of
/// 32 channels and rows of 4 images are full, cut and more than one.
inline const std::vector<ConvCase> kLarger = {
    {{2, 9, 6, 7, 11}, {67, 9, 3, 3, 3}, {{1, 1, 1}, {1, 1, 1}, {1, 1, 1}, 1}},
    {{1, 66, 5, 6, 5}, {10, 66, 2, 2, 2}, {{2, 2, 2}, {1, 1, 1}, {1, 1, 1}, 1}},
    {{1, 1, 13, 15, 15}, {3, 1, 3, 3, 3}, {{1, 1, 1}, {1, 1, 1}, {1, 1, 1}, 1}},
    {{1, 24, 5, 40, 37}, {7, 24, 3, 3, 3}, {{1, 1, 1}, {1, 1, 1}, {1, 1, 1}, 1}},
    {{1, 18, 4, 5, 7}, {29, 18, 3, 2, 3}, {{1, 2, 1}, {1, 1, 1}, {1, 1, 1}, 1}},
    {{5, 70, 3, 5, 4}, {34, 35, 3, 5, 2}, {{1, 1, 1}, {1, 3, 0}, {1, 1, 1}, 2}},
    {{2, 40, 3, 7, 9}, {130, 40, 2, 3, 1}, {{1, 1, 1}, {1, 2, 0}, {1, 2, 1}, 1}},
    {{2, 9, 7, 6, 5}, {8, 9, 2, 3, 2}, {{3, 2, 2}, {1, 2, 0}, {2, 1, 3}, 1}},
};

/// Output, and the gradients of input and weight, of operands that were rounded to a precision before.
inline std::vector<Tensor> run_all(Device device, DType dtype, const ConvCase& c,
                                   Conv3dPrecision before = Conv3dPrecision::fp32) {
  const auto there = [&](const Tensor& x) { return x.to(dtype).to(device); };
  const auto operand = [&](const Shape& shape, std::uint64_t seed) {
    return there(rounded_operand(random_tensor(shape, seed), before));
  };
  const Shape shape = conv3d_output_shape(c.input, c.weight, c.options);
  const Tensor input = operand(c.input, 1), weight = operand(c.weight, 2), grad_output = operand(shape, 5);
  const Tensor bias = there(random_tensor({c.weight[0]}, 3));
  const Tensor input_bias = there(random_tensor({c.input[1]}, 4));
  Tensor output = poisoned(shape, dtype, device);
  Tensor grad_input = poisoned(c.input, dtype, device);
  Tensor grad_weight = poisoned(c.weight, dtype, device);
  const Conv3d& kernels = conv3d_on(device);
  kernels.forward(input, weight, {bias}, c.options, output);
  kernels.backward_input(grad_output, weight, {input_bias}, c.options, grad_input);
  kernels.backward_weight(grad_output, input, c.options, grad_weight);
  return {output, grad_input, grad_weight};
}

/// The same of the definition: operands rounded to the case's precision, then everything in f64.
inline std::vector<Tensor> run_reference(const ConvCase& c) {
  const ConvCase exact = with_precision(with_backend(c, Conv3dBackend::reference), Conv3dPrecision::fp32);
  return run_all(Device::cpu(), DType::f64, exact, c.options.precision);
}

/// Allowed max |error| / max |reference| against sums in f64 of the same products. Tensor cores cut off what
/// their sums lose where a CPU rounds (4.7e-6 seen on an H200 at a depth of 1809); cuDNN's order of sums is
/// its own (3.3e-6).
inline double tolerance_of(const ConvCase& c) {
  if (cuda_is_emulated()) return 2e-6;
  return c.options.backend == Conv3dBackend::mma     ? 1e-5
         : c.options.backend == Conv3dBackend::cudnn ? 5e-6
                                                     : 2e-6;
}

inline void expect_close(const std::vector<Tensor>& actual, const std::vector<Tensor>& expected,
                         double tolerance, const ConvCase& c) {
  const char* names[] = {"output", "grad_input", "grad_weight"};
  for (std::size_t k = 0; k < 3; ++k) {
    EXPECT_LE(relative_error(actual[k], expected[k]), tolerance) << names[k] << " of " << c;
  }
}

inline bool is_eligible(Conv3dBackend backend, Device device, const ConvCase& c) {
  const Shape output = conv3d_output_shape(c.input, c.weight, c.options);
  return conv3d_has_backend(device, backend, c.options.precision) &&
         conv3d_is_eligible(
             backend, device,
             conv3d_shape(Tensor::zeros(c.input), Tensor::zeros(c.weight), Tensor::zeros(output), c.options));
}

/// The backends by which a device can compute a case.
inline std::vector<ConvCase> on_every_backend(Device device, const ConvCase& c) {
  using enum Conv3dBackend;
  std::vector<ConvCase> all;
  for (const Conv3dBackend backend : {reference, gemm, direct, mma, cudnn, fft}) {
    if (is_eligible(backend, device, c)) all.push_back(with_backend(c, backend));
  }
  return all;
}

}  // namespace cinnabar::testing
