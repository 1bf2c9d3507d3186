#include "autograd/deform_conv.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "autograd/conv3d.hpp"
#include "autograd/gradcheck.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"
#include "tests/threads.hpp"

namespace cinnabar::testing {
namespace {

/// Extents and options of one call.
struct Case {
  std::string name;
  Shape input, weight;
  std::int64_t offset_groups;
  bool masked;
  DeformConvOptions options;
};

const std::vector<Case>& cases() {
  static const std::vector<Case> all{
      {"2-D", {2, 3, 5, 7}, {4, 3, 3, 3}, 1, false, {.padding = {0, 1, 1}}},
      {"2-D, mask, strides",
       {1, 4, 9, 8},
       {3, 4, 3, 2},
       2,
       true,
       {.stride = {1, 2, 3}, .padding = {0, 1, 0}}},
      {"2-D, groups", {2, 6, 6, 5}, {4, 3, 2, 3}, 3, true, {.dilation = {1, 2, 1}, .groups = 2}},
      {"3-D", {1, 2, 4, 5, 6}, {3, 2, 2, 3, 2}, 1, false, {.padding = {1, 0, 1}}},
      {"3-D, mask, groups",
       {2, 4, 5, 4, 7},
       {2, 2, 3, 2, 3},
       2,
       true,
       {.stride = {2, 1, 3}, .padding = {1, 1, 2}, .dilation = {1, 2, 1}, .groups = 2}},
      {"3-D, a group of offsets a channel", {1, 4, 3, 4, 5}, {2, 2, 1, 3, 3}, 4, true, {.groups = 2}},
  };
  return all;
}

/// The tensors of a call, and the gradient that arrives.
struct Tensors {
  Tensor input, offset, mask, weight, grad_output;
};

Tensors tensors_of(const Case& c, double farthest = 1.7, DType dtype = DType::f32) {
  const Shape output = deform_conv_output_shape(c.input, c.weight, c.options);
  const std::int64_t dims = c.input.rank() - 2;
  std::int64_t planes = c.offset_groups;
  for (int axis = 2; axis < c.weight.rank(); ++axis) planes *= c.weight[axis];
  Tensors t;
  t.input = random_tensor(c.input, 1, -1, 1, dtype);
  t.offset = random_tensor(output.with(1, dims * planes), 2, -farthest, farthest, dtype);
  if (c.masked) t.mask = random_tensor(output.with(1, planes), 3, -0.5, 1, dtype);
  t.weight = random_tensor(c.weight, 4, -1, 1, dtype);
  t.grad_output = random_tensor(output, 5, -1, 1, dtype);
  return t;
}

/// Runs all kernels of `device`: output, gradients of input, offset, weight, and of the mask where there is
/// one.
std::vector<Tensor> run_all(Device device, DType dtype, const Tensors& t, const DeformConvOptions& options) {
  const auto there = [&](const Tensor& x) { return x.defined() ? x.to(dtype).to(device) : Tensor(); };
  const Tensor input = there(t.input), offset = there(t.offset), mask = there(t.mask);
  const Tensor weight = there(t.weight), grad_output = there(t.grad_output);
  Tensor output = poisoned_like(grad_output), grad_input = poisoned_like(input);
  Tensor grad_offset = poisoned_like(offset), grad_weight = poisoned_like(weight), grad_mask;
  if (mask.defined()) grad_mask = poisoned_like(mask);
  const DeformConv& kernels = deform_conv_on(device);
  kernels.forward(input, offset, mask, weight, {}, options, output);
  kernels.backward_weight(grad_output, input, offset, mask, options, grad_weight);
  kernels.backward_sampling(grad_output, input, offset, mask, weight, options, grad_input, grad_offset,
                            grad_mask);
  std::vector<Tensor> results{output, grad_input, grad_offset, grad_weight};
  if (mask.defined()) results.push_back(grad_mask);
  return results;
}

TEST(DeformConv, SamplesBetweenThePixelsOfAnImage) {
  const Variable image(Tensor::from<float>({0, 1, 2, 3}, {1, 1, 2, 2}));
  const Variable weight(Tensor::from<float>({2}, {1, 1, 1, 1}));
  // Down and right by half a pixel; half out of the image; wholly out; up by a pixel.
  const Variable offset(Tensor::from<float>({0.5f, 0, 1, -1, 0.5f, 0.5f, 0, 0}, {1, 2, 2, 2}));
  EXPECT_EQ(deform_conv(image, offset, weight).value().to_vector<float>(), (std::vector<float>{3, 1, 0, 2}));
  const Variable mask(Tensor::from<float>({0.5f, 0, 1, -1}, {1, 1, 2, 2}));
  const Variable bias(Tensor::from<float>({10}, {1}));
  EXPECT_EQ(deform_conv(image, offset, weight, mask, bias).value().to_vector<float>(),
            (std::vector<float>{11.5f, 10, 10, 8}));
}

TEST(DeformConv, OffsetsGoAlongZThenYThenX) {
  const Tensor image = random_tensor({1, 1, 3, 4, 5}, 1);
  for (int axis = 0; axis < 3; ++axis) {
    Tensor offset = Tensor::zeros({1, 3, 3, 4, 5});
    const std::int64_t step[3] = {20, 5, 1};
    std::fill_n(offset.data<float>() + 60 * axis, 60, 1.0f);
    const Variable moved =
        deform_conv(Variable(image), Variable(offset), Variable(Tensor::from<float>({1}, {1, 1, 1, 1, 1})));
    // The first voxel reads its upper neighbour along the axis.
    EXPECT_EQ(moved.value().to_vector<float>()[0],
              image.to_vector<float>()[static_cast<std::size_t>(step[axis])]);
  }
}

TEST(DeformConv, GradientsMatchDifferences) {
  for (const Case& c : cases()) {
    const Tensors t = tensors_of(c, 1.7, DType::f64);
    std::vector<Tensor> inputs{t.input, t.offset, t.weight,
                               random_tensor({c.weight[0]}, 6, -1, 1, DType::f64)};
    if (c.masked) inputs.push_back(t.mask);
    const auto fn = [&](const std::vector<Variable>& in) {
      return deform_conv(in[0], in[1], in[2], c.masked ? in[4] : Variable(), in[3], c.options);
    };
    const GradcheckResult result = gradcheck(fn, inputs, {.max_entries = 40});
    EXPECT_TRUE(result) << c.name << '\n' << result.message;
  }
}

TEST(DeformConv, GradcheckRejectsGradientsWithoutTheMask) {
  const Case& c = cases()[1];
  const Tensors t = tensors_of(c, 1.7, DType::f64);
  const auto wrong = [&](const std::vector<Variable>& in) {
    const Tensor output =
        deform_conv(in[0], in[1], Variable(t.weight), Variable(t.mask), {}, c.options).value();
    return record_one("wrong", output, in, [&](const Tensor& grad_output) {
      Tensors bare = t;
      bare.mask = Tensor::full(t.mask.shape(), 1.0, DType::f64);
      bare.grad_output = grad_output;
      const auto results = run_all(Device::cpu(), DType::f64, bare, c.options);
      return std::vector<Tensor>{results[1], results[2]};
    });
  };
  EXPECT_FALSE(gradcheck(wrong, {t.input, t.offset}, {.max_entries = 40}));
}

TEST(DeformConv, EpilogueFollowsInTheSamePass) {
  const Case& c = cases()[4];
  const Tensors t = tensors_of(c);
  const auto run = [&](const EpilogueInputs& epilogue) {
    return deform_conv(Variable(t.input), Variable(t.offset), Variable(t.weight), Variable(t.mask), epilogue,
                       c.options);
  };
  EpilogueInputs after(Variable(random_tensor({2}, 7)));
  after.activation = Activation::leaky_relu;
  EXPECT_TRUE(same_values(run(after).value(), epilogue(run({}), after).value()));
}

TEST(DeformConv, BitsDoNotDependOnTheNumberOfThreads) {
  const Case c{"", {2, 6, 9, 10, 11}, {4, 3, 3, 3, 3}, 2, true, {.padding = {1, 1, 1}, .groups = 2}};
  const Tensors t = tensors_of(c);
  const auto compute = [&] { return run_all(Device::cpu(), DType::f32, t, c.options); };
  const auto one = on_threads(1, compute), three = on_threads(3, compute);
  for (std::size_t k = 0; k < one.size(); ++k) EXPECT_TRUE(same_values(one[k], three[k])) << k;
}

TEST(DeformConv, RefusesMisfits) {
  const Variable image(random_tensor({2, 4, 5, 6}, 1)), weight(random_tensor({3, 4, 3, 3}, 2));
  const auto run = [&](const Shape& offset, const Shape& mask = {2, 9, 3, 4},
                       const DeformConvOptions& options = {}, DType dtype = DType::f32) {
    return deform_conv(image, Variable(Tensor::zeros(offset, dtype)), weight, Variable(Tensor::zeros(mask)),
                       {}, options);
  };
  EXPECT_NO_THROW(run({2, 18, 3, 4}));
  EXPECT_NO_THROW(run({2, 36, 3, 4}, {2, 18, 3, 4}));
  EXPECT_THROW(run({2, 36, 3, 4}), Error);                 // mask of one group, offset of two
  EXPECT_THROW(run({2, 27, 3, 4}), Error);                 // three numbers a tap in 2-D
  EXPECT_THROW(run({2, 54, 3, 4}, {2, 27, 3, 4}), Error);  // three groups do not divide 4 channels
  EXPECT_THROW(run({2, 18, 5, 6}), Error);                 // extents of the input, not of the output
  EXPECT_THROW(run({1, 18, 3, 4}), Error);                 // another batch
  EXPECT_THROW(run({2, 18, 12}), Error);                   // another rank
  EXPECT_THROW(run({2, 18, 3, 4}, {2, 9, 3, 4}, {.stride = {1, 0, 1}}), Error);
  EXPECT_THROW(run({2, 18, 3, 4}, {2, 9, 3, 4}, {.groups = 2}), Error);
  EXPECT_THROW(run({2, 18, 3, 4}, {2, 9, 3, 4}, {}, DType::f64), Error);
  EXPECT_THROW(
      deform_conv(image, Variable(Tensor::zeros({2, 18, 3, 4})), Variable(Tensor::zeros({3, 4, 1, 3, 3}))),
      Error);
  Tensor grad_input = Tensor::zeros({2, 4, 5, 5}), none;
  EXPECT_THROW(
      deform_conv_on(Device::cpu())
          .backward_sampling(Tensor::zeros({2, 3, 3, 4}), image.value(), Tensor::zeros({2, 18, 3, 4}), {},
                             weight.value(), {}, grad_input, none, none),
      Error);
}

class DeformConvOn : public OnDevice {};

TEST_P(DeformConvOn, AgreesWithFloat64AndAssigns) {
  for (const Case& c : cases()) {
    // Offsets within a cell or two, and far beyond the image.
    for (const double farthest : {0.4, 4.0}) {
      const Tensors t = tensors_of(c, farthest);
      const auto expected = run_all(Device::cpu(), DType::f64, t, c.options);
      // All at once; one image or a range of its positions at a time.
      for (const std::int64_t workspace : {std::int64_t{1} << 20, std::int64_t{1}}) {
        DeformConvOptions options = c.options;
        options.workspace_bytes = workspace;
        const auto actual = run_all(device(), DType::f32, t, options);
        const auto again = run_all(device(), DType::f32, t, options);
        for (std::size_t k = 0; k < expected.size(); ++k) {
          EXPECT_LE(relative_error(actual[k], expected[k]), 1e-5) << c.name << ", result " << k;
          EXPECT_TRUE(same_values(actual[k], again[k])) << c.name << ", result " << k;
        }
      }
    }
  }
}

TEST_P(DeformConvOn, RangesOfPositionsGiveTheWhole) {
  // More positions than a block of either device, in ranges of images and within one.
  const Case c{"", {3, 2, 5, 13, 11}, {3, 2, 1, 2, 3}, 1, true, {.padding = {0, 1, 1}}};
  const Tensors t = tensors_of(c);
  const auto expected = run_all(Device::cpu(), DType::f64, t, c.options);
  const std::int64_t image_bytes = 12 * 5 * 14 * 11 * 4;
  for (const std::int64_t workspace : {2 * image_bytes, image_bytes / 2}) {
    DeformConvOptions options = c.options;
    options.workspace_bytes = workspace;
    const auto actual = run_all(device(), DType::f32, t, options);
    for (std::size_t k = 0; k < expected.size(); ++k) {
      EXPECT_LE(relative_error(actual[k], expected[k]), 1e-5) << workspace << ", result " << k;
    }
  }
}

TEST_P(DeformConvOn, SmoothOffsetsShareCellsBetweenNeighbours) {
  const Case c{"", {1, 3, 7, 41}, {2, 3, 3, 3}, 1, false, {.padding = {0, 1, 1}}};
  Tensors t = tensors_of(c);
  float* offset = t.offset.data<float>();
  for (std::int64_t i = 0; i < t.offset.numel(); ++i) offset[i] = 0.3f + 0.02f * static_cast<float>(i % 41);
  const auto expected = run_all(Device::cpu(), DType::f64, t, c.options);
  const auto actual = run_all(device(), DType::f32, t, c.options);
  for (std::size_t k = 0; k < expected.size(); ++k) {
    EXPECT_LE(relative_error(actual[k], expected[k]), 2e-6) << k;
  }
}

TEST_P(DeformConvOn, WithoutOffsetsIsTheConvolution) {
  for (const Case& c : cases()) {
    if (c.input.rank() == 4) continue;
    Tensors t = tensors_of(c);
    t.offset.fill(0.0);
    if (t.mask.defined()) t.mask.fill(1.0);
    const auto actual = run_all(device(), DType::f32, t, c.options);
    Conv3dOptions options;
    options.stride = c.options.stride;
    options.padding = c.options.padding;
    options.dilation = c.options.dilation;
    options.groups = c.options.groups;
    const Variable input(t.input.to(DType::f64), true), weight(t.weight.to(DType::f64), true);
    const Variable output = conv3d(input, weight, {}, options);
    output.backward(t.grad_output.to(DType::f64));
    EXPECT_LE(relative_error(actual[0], output.value()), 2e-6) << c.name;
    EXPECT_LE(relative_error(actual[1], input.grad()), 2e-6) << c.name;
    EXPECT_LE(relative_error(actual[3], weight.grad()), 2e-6) << c.name;
  }
}

TEST_P(DeformConvOn, InputGradientHoldsAtAnyMagnitudeAndWhenAllPointsMeet) {
  const Case c{"", {1, 2, 11, 13}, {2, 2, 3, 3}, 1, true, {.padding = {0, 1, 1}}};
  for (const double magnitude : {1e-30, 1e-12, 1.0, 1e30}) {
    Tensors t = tensors_of(c);
    t.grad_output = random_tensor(t.grad_output.shape(), 31, 0.5 * magnitude, magnitude);
    float* offset = t.offset.data<float>();
    // Every tap of every position moves to near pixel (5, 6).
    for (std::int64_t i = 0; i < t.offset.numel(); ++i) {
      const std::int64_t plane = i / 143, tap = plane / 2, y = i % 143 / 13, x = i % 13;
      const bool along_y = plane % 2 == 0;
      offset[i] = 0.3f + static_cast<float>(along_y ? 6 - y - tap / 3 : 7 - x - tap % 3);
    }
    const auto expected = run_all(Device::cpu(), DType::f64, t, c.options);
    const auto actual = run_all(device(), DType::f32, t, c.options);
    EXPECT_LE(relative_error(actual[1], expected[1]), 1e-5) << magnitude;
  }
}

TEST_P(DeformConvOn, NanAndFarOffsetsStayWhereTheyAre) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  Tensors t;
  t.input = random_tensor({1, 1, 2, 4}, 41, 0.5, 1);
  t.offset = Tensor::zeros({1, 2, 2, 4});
  t.offset.data<float>()[8] = kNan;     // x of the first position
  t.offset.data<float>()[1] = 1e30f;    // y of the second
  t.offset.data<float>()[10] = -1e30f;  // x of the third
  t.weight = Tensor::full({1, 1, 1, 1}, 1.0);
  t.grad_output = Tensor::full({1, 1, 2, 4}, 1.0);
  const auto found = run_all(device(), DType::f32, t, {});
  const std::vector<float> output = found[0].to_vector<float>(), grad_input = found[1].to_vector<float>();
  EXPECT_TRUE(std::isnan(output[0]));
  EXPECT_EQ(output[1], 0.0f);
  EXPECT_EQ(output[2], 0.0f);
  EXPECT_EQ(output[3], t.input.to_vector<float>()[3]);
  EXPECT_EQ(grad_input, (std::vector<float>{0, 0, 0, 1, 1, 1, 1, 1}));
  const std::vector<float> grad_offset = found[2].to_vector<float>();
  EXPECT_TRUE(std::isnan(grad_offset[0]) && std::isnan(grad_offset[8]));
  EXPECT_TRUE(std::isfinite(grad_offset[1]) && std::isfinite(grad_offset[10]));
}

TEST_P(DeformConvOn, VoxelsOfWeightZeroAreNotRead) {
  Tensors t;
  t.input = Tensor::full({1, 1, 3, 3, 3}, 1.0);
  t.input.data<float>()[26] = std::numeric_limits<float>::infinity();
  t.offset = Tensor::zeros({1, 3, 3, 3, 3});
  t.weight = Tensor::full({1, 1, 1, 1, 1}, 1.0);
  t.grad_output = Tensor::full({1, 1, 3, 3, 3}, 1.0);
  EXPECT_TRUE(same_values(run_all(device(), DType::f32, t, {})[0], t.input));
}

TEST_P(DeformConvOn, AnEmptyBatchGivesAZeroGradientOfTheWeight) {
  Case c = cases()[3];
  c.input = c.input.with(0, 0);
  const Tensors t = tensors_of(c);
  EXPECT_TRUE(same_values(run_all(device(), DType::f32, t, c.options)[3], Tensor::zeros(c.weight)));
}

TEST(DeformConvOnCuda, AsksForFloat32) {
  if (cuda_status().device_count == 0) GTEST_SKIP() << cuda_status().reason;
  const auto zeros = [](const Shape& shape) {
    return Variable(Tensor::zeros(shape, DType::f64, Device::cuda()));
  };
  EXPECT_THROW(deform_conv(zeros({1, 1, 2, 2}), zeros({1, 2, 2, 2}), zeros({1, 1, 1, 1})), Error);
}

CINNABAR_ON_EACH_DEVICE(DeformConvOn);

}  // namespace
}  // namespace cinnabar::testing
