#include <gtest/gtest.h>

#include <cmath>

#include "autograd/gradcheck.hpp"
#include "autograd/warp.hpp"
#include "kernels/warp.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"
#include "tests/threads.hpp"

namespace cinnabar {
namespace {

using testing::poisoned;
using testing::random_tensor;
using testing::relative_error;

/// Index of a corner under the boundary rule, or -1 where it counts as zero.
std::int64_t corner_index(std::int64_t index, std::int64_t extent, Boundary boundary) {
  if (boundary == Boundary::zeros) return index >= 0 && index < extent ? index : -1;
  if (boundary == Boundary::border) return std::clamp<std::int64_t>(index, 0, extent - 1);
  if (extent == 1) return 0;
  const std::int64_t period = 2 * (extent - 1);
  const std::int64_t folded = ((index % period) + period) % period;
  return folded < extent ? folded : period - folded;
}

/// Calls fn(input voxel, weight, derivative of the weight along each axis) for the corners of p = x + u(x).
template <class Function>
void for_each_corner(const Shape& shape, const double* u, std::int64_t voxels, std::int64_t i,
                     Boundary boundary, const Function& fn) {
  const std::int64_t extent[3] = {shape[4], shape[3], shape[2]};
  const std::int64_t voxel[3] = {i % shape[4], i / shape[4] % shape[3], i / shape[4] / shape[3]};
  std::int64_t cell[3];
  double fraction[3];
  for (int d = 0; d < 3; ++d) {
    const double position = static_cast<double>(voxel[d]) + u[d * voxels + i];
    cell[d] = static_cast<std::int64_t>(std::floor(position));
    fraction[d] = position - std::floor(position);
  }
  for (int k = 0; k < 8; ++k) {
    std::int64_t at[3];
    double weight[3], slope[3];
    for (int d = 0; d < 3; ++d) {
      const int high = (k >> d) & 1;
      at[d] = corner_index(cell[d] + high, extent[d], boundary);
      weight[d] = high ? fraction[d] : 1.0 - fraction[d];
      slope[d] = high ? 1.0 : -1.0;
    }
    if (at[0] < 0 || at[1] < 0 || at[2] < 0) continue;
    const double slopes[3] = {slope[0] * weight[1] * weight[2], weight[0] * slope[1] * weight[2],
                              weight[0] * weight[1] * slope[2]};
    fn((at[2] * extent[1] + at[1]) * extent[0] + at[0], weight[0] * weight[1] * weight[2], slopes);
  }
}

struct Expected {
  Tensor output, grad_input, grad_displacement;
};

/// Everything by plain loops in float64.
Expected by_definition(const Tensor& input, const Tensor& u, const Tensor& grad, Boundary boundary) {
  const std::int64_t voxels = u.numel() / u.shape(0) / 3;
  const std::int64_t channels = input.shape(1);
  const auto image = input.to_vector<double>();
  const auto field = u.to_vector<double>();
  const auto g = grad.to_vector<double>();
  std::vector<double> output(g.size(), 0.0), grad_input(image.size(), 0.0), grad_u(field.size(), 0.0);
  const auto at = [](std::int64_t i) { return static_cast<std::size_t>(i); };
  for (std::int64_t n = 0; n < u.shape(0); ++n) {
    const std::int64_t item = input.shape(0) == 1 ? 0 : n;
    for (std::int64_t i = 0; i < voxels; ++i) {
      for_each_corner(u.shape(), field.data() + n * 3 * voxels, voxels, i, boundary,
                      [&](std::int64_t corner, double weight, const double(&slopes)[3]) {
                        for (std::int64_t c = 0; c < channels; ++c) {
                          const std::int64_t from = (item * channels + c) * voxels + corner;
                          const std::int64_t to = (n * channels + c) * voxels + i;
                          output[at(to)] += weight * image[at(from)];
                          grad_input[at(from)] += weight * g[at(to)];
                          for (int d = 0; d < 3; ++d) {
                            grad_u[at((n * 3 + d) * voxels + i)] += slopes[d] * image[at(from)] * g[at(to)];
                          }
                        }
                      });
    }
  }
  return {Tensor::from(output, grad.shape()), Tensor::from(grad_input, input.shape()),
          Tensor::from(grad_u, u.shape())};
}

class WarpOnDevice : public testing::OnDevice {
 protected:
  Tensor sent(const Tensor& tensor) const { return tensor.to(device()); }
  const Warp& kernels() const { return warp_on(device()); }

  void compare(const Shape& input_shape, std::int64_t batch, double reach, Boundary boundary) {
    const Shape field = input_shape.with(0, batch).with(1, 3);
    const Tensor input = random_tensor(input_shape, 1);
    const Tensor u = random_tensor(field, 2, -reach, reach);
    const Tensor grad = random_tensor(input_shape.with(0, batch), 3);
    const Expected expected = by_definition(input, u, grad, boundary);
    Tensor output = poisoned(grad.shape(), DType::f32, device());
    Tensor grad_input = poisoned(input_shape, DType::f32, device());
    Tensor grad_u = poisoned(field, DType::f32, device());
    kernels().forward(sent(input), sent(u), boundary, output);
    kernels().backward_input(sent(grad), sent(u), boundary, grad_input);
    kernels().backward_displacement(sent(grad), sent(input), sent(u), boundary, grad_u);
    const std::string text = detail::concat(input_shape, " batch ", batch, " boundary ", int(boundary));
    EXPECT_LT(relative_error(output, expected.output), 2e-6) << text;
    EXPECT_LT(relative_error(grad_input, expected.grad_input), 2e-6) << text;
    EXPECT_LT(relative_error(grad_u, expected.grad_displacement), 3e-6) << text;
  }
};

TEST_P(WarpOnDevice, AgreesWithTheDefinitionAtOddSizes) {
  for (const Boundary boundary : {Boundary::zeros, Boundary::border, Boundary::reflection}) {
    compare({1, 1, 7, 5, 33}, 1, 3.0, boundary);
    compare({2, 3, 5, 9, 31}, 2, 1.5, boundary);
    compare({1, 3, 4, 11, 37}, 2, 9.0, boundary);  // one input for the batch, far outside
    compare({1, 6, 3, 4, 5}, 1, 2.0, boundary);
    compare({2, 2, 1, 13, 17}, 2, 2.0, boundary);  // 2-D
    compare({1, 1, 1, 1, 9}, 1, 2.0, boundary);
    compare({1, 5, 2, 1, 1}, 1, 1.0, boundary);
  }
}

TEST_P(WarpOnDevice, MovesARampByHandFigures) {
  const Tensor row = sent(Tensor::from(std::vector<float>{10, 20, 40}, {1, 1, 1, 1, 3}));
  const Tensor u =
      sent(Tensor::from(std::vector<float>{0.5f, 1.25f, -2.5f, 0, 0, 0, 0, 0, 0}, {1, 3, 1, 1, 3}));
  Tensor output = poisoned(row.shape(), DType::f32, device());
  kernels().forward(row, u, Boundary::zeros, output);
  EXPECT_EQ(output.to_vector<float>(), (std::vector<float>{15, 30, 5}));
  kernels().forward(row, u, Boundary::border, output);
  EXPECT_EQ(output.to_vector<float>(), (std::vector<float>{15, 40, 10}));
  kernels().forward(row, u, Boundary::reflection, output);
  EXPECT_EQ(output.to_vector<float>(), (std::vector<float>{15, 35, 15}));
}

TEST_P(WarpOnDevice, IdentityKeepsEveryBit) {
  const Tensor input = random_tensor({1, 3, 3, 5, 7}, 4);
  const Tensor u = sent(Tensor::zeros(input.shape()));
  for (const Boundary boundary : {Boundary::zeros, Boundary::border, Boundary::reflection}) {
    Tensor output = poisoned(input.shape(), DType::f32, device());
    kernels().forward(sent(input), u, boundary, output);
    EXPECT_TRUE(testing::same_values(output, input));
  }
}

TEST_P(WarpOnDevice, FarAndUndefinedPositionsAreZeroAndNan) {
  const Tensor input = sent(Tensor::full({1, 3, 1, 1, 4}, 1.0));
  const float nan = std::nanf("");
  const Tensor u = sent(
      Tensor::from(std::vector<float>{1e30f, -1e30f, nan, 0, 0, 0, 0, nan, 0, 0, 0, 0}, {1, 3, 1, 1, 4}));
  Tensor output = poisoned(input.shape(), DType::f32, device());
  kernels().forward(input, u, Boundary::zeros, output);
  const auto values = output.to_vector<float>();
  EXPECT_EQ(values[0], 0.0f);
  EXPECT_EQ(values[1], 0.0f);
  EXPECT_TRUE(std::isnan(values[2]));
  EXPECT_TRUE(std::isnan(values[3]));
}

TEST_P(WarpOnDevice, ComposesAffineMapsExactly) {
  // outer(p) = 2 p - 1 and inner(x) = x / 2 inside the grid: outer(inner(x)) = x - 1.
  const Shape shape{1, 3, 5, 5, 5};
  std::vector<float> outer(375), inner(375);
  for (std::size_t i = 0; i < 125; ++i) {
    const float x = static_cast<float>(i % 5);
    outer[i] = x - 1.0f;
    inner[i] = -0.5f * x;
  }
  Tensor composed = poisoned(shape, DType::f32, device());
  kernels().compose(sent(Tensor::from(outer, shape)), sent(Tensor::from(inner, shape)), composed);
  const auto values = composed.to_vector<float>();
  for (std::size_t i = 0; i < 375; ++i) EXPECT_EQ(values[i], i < 125 ? -1.0f : 0.0f) << i;
}

TEST_P(WarpOnDevice, RejectsShapesThatDoNotFit) {
  const Tensor image = sent(Tensor::zeros({2, 1, 3, 4, 5}));
  const Tensor u = sent(Tensor::zeros({2, 3, 3, 4, 5}));
  Tensor output = sent(Tensor::zeros({2, 1, 3, 4, 5}));
  Tensor small = sent(Tensor::zeros({2, 1, 3, 4, 4}));
  Tensor u4 = sent(Tensor::zeros({2, 4, 3, 4, 5}));
  Tensor three = sent(Tensor::zeros({3, 1, 3, 4, 5}));
  EXPECT_THROW(kernels().forward(image, u, Boundary::zeros, small), Error);
  EXPECT_THROW(kernels().forward(small, u, Boundary::zeros, output), Error);
  EXPECT_THROW(kernels().forward(image, u4, Boundary::zeros, output), Error);
  EXPECT_THROW(kernels().forward(three, u, Boundary::zeros, output), Error);
  EXPECT_THROW(kernels().forward(sent(image.to(DType::f64)), u, Boundary::zeros, output), Error);
  EXPECT_THROW(kernels().backward_input(small, u, Boundary::zeros, output), Error);
  EXPECT_THROW(kernels().compose(image, u, output), Error);
  EXPECT_THROW(kernels().forward(Tensor(), u, Boundary::zeros, output), Error);
}

CINNABAR_ON_EACH_DEVICE(WarpOnDevice);

TEST(Warp, SplatHasTheSameBitsForAnyNumberOfThreads) {
  const Shape shape{2, 3, 19, 23, 29};
  const Tensor grad = random_tensor(shape, 5);
  const Tensor u = random_tensor(shape, 6, -6.0, 6.0);
  const auto compute = [&] {
    Tensor result = poisoned(shape);
    cpu::warp.backward_input(grad, u, Boundary::zeros, result);
    return result;
  };
  const Tensor one = testing::on_threads(1, compute);
  EXPECT_TRUE(testing::same_values(one, testing::on_threads(2, compute)));
  EXPECT_TRUE(testing::same_values(one, testing::on_threads(3, compute)));
}

/// Displacements whose positions stay 0.1 away from voxel planes, where the sample has a kink.
Tensor smooth_positions(const Shape& shape, std::uint64_t seed, double reach) {
  auto values = random_tensor(shape, seed, -reach, reach, DType::f64).to_vector<double>();
  for (double& u : values) u = std::floor(u) + 0.1 + 0.8 * (u - std::floor(u));
  return Tensor::from(values, shape);
}

TEST(Warp, GradientAgreesWithDifferences) {
  const Tensor image = random_tensor({1, 2, 3, 4, 5}, 7, -1, 1, DType::f64);
  const Tensor u = smooth_positions({2, 3, 3, 4, 5}, 8, 2.0);
  for (const Boundary boundary : {Boundary::zeros, Boundary::border, Boundary::reflection}) {
    const auto result =
        gradcheck([=](const std::vector<Variable>& in) { return warp(in[0], in[1], boundary); }, {image, u});
    EXPECT_TRUE(result) << result.message;
  }
}

TEST(Warp, CompositionGradientAgreesWithDifferences) {
  const Tensor outer = random_tensor({2, 3, 1, 4, 5}, 9, -1, 1, DType::f64);
  Tensor inner = smooth_positions({2, 3, 1, 4, 5}, 10, 1.5);
  const auto result =
      gradcheck([](const std::vector<Variable>& in) { return compose(in[0], in[1]); }, {outer, inner});
  EXPECT_TRUE(result) << result.message;
}

TEST(Warp, GradcheckRejectsAGradientWithTheWrongBoundary) {
  const Tensor image = random_tensor({1, 1, 3, 4, 5}, 11, -1, 1, DType::f64);
  const Tensor u = smooth_positions({1, 3, 3, 4, 5}, 12, 2.0);
  const auto wrong = [](const std::vector<Variable>& in) {
    const Tensor field = in[1].value();
    Tensor output = Tensor::empty_like(in[0].value());
    cpu::warp.forward(in[0].value(), field, Boundary::border, output);
    return record_one("wrong_warp", output, {in[0], in[1]}, [=](const Tensor& grad) {
      std::vector<Tensor> grads{Tensor::empty_like(grad), {}};
      cpu::warp.backward_input(grad, field, Boundary::zeros, grads[0]);
      return grads;
    });
  };
  EXPECT_FALSE(gradcheck(std::function<Variable(const std::vector<Variable>&)>(wrong), {image, u}));
}

}  // namespace
}  // namespace cinnabar
