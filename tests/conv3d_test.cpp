#include "autograd/conv3d.hpp"

#include <gtest/gtest.h>

#include "autograd/gradcheck.hpp"
#include "tests/conv3d_cases.hpp"
#include "tests/devices.hpp"
#include "tests/threads.hpp"

namespace cinnabar::testing {
namespace {

using Backend = Conv3dBackend;

TEST(Conv3d, HandSizedRow) {
  const Variable row(Tensor::from<float>({1, 2, 3, 4}, {1, 1, 1, 1, 4}));
  const Variable weight(Tensor::from<float>({1, 10, 100}, {1, 1, 1, 1, 3}));
  const Variable bias(Tensor::from<float>({0.5f}, {1}));
  const auto values = [](const Variable& v) { return v.value().to_vector<float>(); };
  // A correlation: the kernel is not flipped.
  EXPECT_EQ(values(conv3d(row, weight)), (std::vector<float>{321, 432}));
  const Conv3dOptions padded{{1, 1, 2}, {0, 0, 1}};
  EXPECT_EQ(values(conv3d(row, weight, bias, padded)), (std::vector<float>{210.5f, 432.5f}));
  const Conv3dOptions dilated{{1, 1, 1}, {0, 0, 2}, {1, 1, 2}};
  EXPECT_EQ(values(conv3d(row, weight, {}, dilated)), (std::vector<float>{310, 420, 31, 42}));
  // Each input value stamps the kernel.
  EXPECT_EQ(values(conv_transpose3d(row, weight, bias)),
            (std::vector<float>{1.5f, 12.5f, 123.5f, 234.5f, 340.5f, 400.5f}));
  const Conv3dOptions strided{{1, 1, 3}};
  EXPECT_EQ(values(conv_transpose3d(row, weight, {}, strided, {0, 0, 1})),
            (std::vector<float>{1, 10, 100, 2, 20, 200, 3, 30, 300, 4, 40, 400, 0}));
}

TEST(Conv3d, GroupsReadTheirOwnChannels) {
  const Variable image(Tensor::from<float>({1, 2, 3, 4}, {1, 4, 1, 1, 1}));
  const Variable weight(Tensor::from<float>({1, 10, 1, 10}, {2, 2, 1, 1, 1}));
  Conv3dOptions options;
  options.groups = 2;
  EXPECT_EQ(conv3d(image, weight, {}, options).value().to_vector<float>(), (std::vector<float>{21, 43}));
}

TEST(Conv3d, GradientsMatchDifferencesOnEveryBackend) {
  for (const ConvCase& plain : kCases) {
    for (const ConvCase& c : on_every_backend(Device::cpu(), plain)) {
      const GradcheckResult result = gradcheck(
          [&](const std::vector<Variable>& v) { return conv3d(v[0], v[1], v[2], c.options); },
          {random_tensor(c.input, 1, -1, 1, DType::f64), random_tensor(c.weight, 2, -1, 1, DType::f64),
           random_tensor({c.weight[0]}, 3, -1, 1, DType::f64)},
          {.max_entries = 25});
      EXPECT_TRUE(result) << c << '\n' << result.message;
    }
  }
}

TEST(Conv3d, GradientsOfTransposedConvolutionsMatchDifferences) {
  struct TransposedCase {
    Shape input, weight;
    Conv3dOptions options;
    std::array<std::int64_t, 3> output_padding;
    Shape output;
  };
  const std::vector<TransposedCase> cases = {
      {{1, 4, 3, 2, 3}, {4, 2, 3, 3, 3}, {{2, 2, 2}, {1, 1, 1}}, {0, 0, 0}, {1, 2, 5, 3, 5}},
      {{2, 2, 3, 3, 2}, {2, 3, 2, 2, 2}, {{2, 2, 2}, {1, 1, 1}}, {1, 0, 1}, {2, 3, 5, 4, 3}},
      {{1, 4, 2, 3, 2}, {4, 3, 3, 2, 1}, {{2, 1, 3}, {1, 0, 0}, {1, 2, 1}, 2}, {1, 1, 2}, {1, 6, 4, 6, 6}},
      {{1, 2, 3, 2, 3}, {2, 1, 2, 2, 2}, {{1, 1, 1}, {0, 0, 1}, {3, 2, 1}}, {2, 1, 0}, {1, 1, 8, 5, 2}},
      {{1, 2, 3, 4, 3}, {2, 2, 3, 3, 3}, {{1, 1, 1}, {1, 1, 1}}, {0, 0, 0}, {1, 2, 3, 4, 3}},
  };
  for (const TransposedCase& c : cases) {
    const auto fn = [&](const std::vector<Variable>& v) {
      return conv_transpose3d(v[0], v[1], v[2], c.options, c.output_padding);
    };
    const std::vector<Tensor> inputs = {
        random_tensor(c.input, 1, -1, 1, DType::f64), random_tensor(c.weight, 2, -1, 1, DType::f64),
        random_tensor({c.weight[1] * c.options.groups}, 3, -1, 1, DType::f64)};
    EXPECT_EQ(fn({Variable(inputs[0]), Variable(inputs[1]), Variable(inputs[2])}).shape(), c.output);
    const GradcheckResult result = gradcheck(fn, inputs, {.max_entries = 40});
    EXPECT_TRUE(result) << c.input << c.weight << '\n' << result.message;
  }
}

TEST(Conv3d, GradcheckRejectsTheGradientOfAnotherDilation) {
  // Both options give outputs of the same shape.
  const Conv3dOptions right{{1, 1, 1}, {1, 1, 1}, {1, 1, 1}};
  const Conv3dOptions other{{1, 1, 1}, {2, 2, 2}, {2, 2, 2}};
  const auto wrong = [&](const std::vector<Variable>& v) {
    const Tensor x = v[0].value();
    const Tensor w = v[1].value();
    return record_one("wrong", conv3d(v[0].detach(), v[1].detach(), {}, right).value(), v,
                      [=](const Tensor& grad) {
                        std::vector<Tensor> grads{Tensor::empty_like(x), Tensor::empty_like(w)};
                        cpu::conv3d.backward_input(grad, w, {}, right, grads[0]);
                        cpu::conv3d.backward_weight(grad, x, other, grads[1]);
                        return grads;
                      });
  };
  EXPECT_FALSE(gradcheck(wrong, {random_tensor({1, 2, 3, 4, 3}, 1, -1, 1, DType::f64),
                                 random_tensor({2, 2, 3, 3, 3}, 2, -1, 1, DType::f64)}));
}

TEST(Conv3d, BackendsAgreeInFloat64) {
  for (const auto& list : {kCases, kLarger}) {
    for (const ConvCase& c : list) {
      const auto expected = run_reference(c);
      for (const Backend backend : {Backend::gemm, Backend::direct, Backend::fft}) {
        if (!is_eligible(backend, Device::cpu(), c)) continue;
        const ConvCase one = with_backend(c, backend);
        expect_close(run_all(Device::cpu(), DType::f64, one), expected, 1e-13, one);
      }
    }
  }
}

TEST(Conv3d, BackendsHoldFloat32) {
  for (const auto& list : {kCases, kLarger}) {
    for (const ConvCase& c : list) {
      const auto expected = run_reference(c);
      for (const ConvCase& one : on_every_backend(Device::cpu(), c)) {
        expect_close(run_all(Device::cpu(), DType::f32, one), expected, 2e-6, one);
      }
    }
  }
}

TEST(Conv3d, BitsDoNotDependOnTheNumberOfThreads) {
  const ConvCase c{{3, 6, 9, 11, 13}, {8, 6, 3, 3, 3}, {{1, 1, 1}, {1, 1, 1}, {1, 1, 1}, 1}};
  for (const ConvCase& one : on_every_backend(Device::cpu(), c)) {
    const auto compute = [&] { return run_all(Device::cpu(), DType::f32, one); };
    const auto alone = on_threads(1, compute);
    const auto shared = on_threads(3, compute);
    for (std::size_t k = 0; k < 3; ++k) EXPECT_TRUE(same_values(alone[k], shared[k])) << k << " of " << one;
  }
}

TEST(Conv3d, TheRuleTakesWhatIsFastest) {
  const auto rule_takes = [](Backend backend, const ConvCase& c) {
    const Tensor expected = run_all(Device::cpu(), DType::f32, with_backend(c, backend))[0];
    const Tensor actual = run_all(Device::cpu(), DType::f32, with_backend(c, Backend::by_rule))[0];
    return same_values(actual, expected);
  };
  const Conv3dOptions same{{1, 1, 1}, {1, 1, 1}}, strided{{2, 2, 2}, {1, 1, 1}};
  EXPECT_TRUE(rule_takes(Backend::fft, {{2, 32, 8, 8, 7}, {32, 32, 3, 3, 3}, same}));
  EXPECT_TRUE(rule_takes(Backend::direct, {{2, 1, 8, 8, 7}, {8, 1, 3, 3, 3}, same}));
  EXPECT_TRUE(rule_takes(Backend::direct, {{1, 2, 5, 40, 40}, {2, 2, 3, 3, 3}, same}));
  EXPECT_TRUE(rule_takes(Backend::gemm, {{2, 32, 8, 8, 7}, {32, 32, 3, 3, 3}, strided}));
}

TEST(Conv3d, RefusesMisfits) {
  const Variable image(Tensor::zeros({1, 4, 5, 6, 7}));
  const auto weight = [](const Shape& shape) { return Variable(Tensor::zeros(shape)); };
  const auto options = [](std::int64_t stride, std::int64_t padding, std::int64_t dilation,
                          std::int64_t groups) {
    return Conv3dOptions{
        {stride, stride, stride}, {padding, padding, padding}, {dilation, dilation, dilation}, groups};
  };
  EXPECT_NO_THROW(conv3d(image, weight({2, 4, 5, 6, 7})));
  EXPECT_THROW(conv3d(image, weight({2, 4, 6, 6, 7})), Error);
  EXPECT_THROW(conv3d(image, weight({2, 3, 3, 3, 3})), Error);
  EXPECT_THROW(conv3d(image, weight({2, 4, 3, 3})), Error);
  EXPECT_THROW(conv3d(image, weight({2, 4, 0, 3, 3})), Error);
  EXPECT_THROW(conv3d(image, weight({3, 2, 3, 3, 3}), {}, options(1, 0, 1, 2)), Error);
  EXPECT_THROW(conv3d(image, weight({2, 4, 3, 3, 3}), {}, options(0, 0, 1, 1)), Error);
  EXPECT_THROW(conv3d(image, weight({2, 4, 3, 3, 3}), {}, options(1, -1, 1, 1)), Error);
  EXPECT_THROW(conv3d(image, weight({2, 4, 3, 3, 3}), {}, options(1, 0, 3, 1)), Error);
  EXPECT_THROW(conv3d(image, weight({2, 4, 3, 3, 3}), {}, options(1, 0, 1, 0)), Error);
  EXPECT_THROW(conv3d(image, weight({2, 4, 3, 3, 3}), weight({3})), Error);
  EXPECT_THROW(conv3d(image, Variable(Tensor::zeros({2, 4, 3, 3, 3}, DType::f64))), Error);
  Conv3dOptions fft = options(2, 0, 1, 1);
  fft.backend = Backend::fft;
  EXPECT_THROW(conv3d(image, weight({2, 4, 3, 3, 3}), {}, fft), Error);
  EXPECT_THROW(conv_transpose3d(image, weight({3, 2, 3, 3, 3})), Error);
  EXPECT_THROW(conv_transpose3d(image, weight({4, 2, 3, 3, 3}), {}, options(2, 1, 1, 1), {2, 0, 0}), Error);
  EXPECT_THROW(conv_transpose3d(image, weight({4, 2, 1, 1, 1}), {}, options(1, 4, 1, 1)), Error);
  Tensor output = Tensor::zeros({1, 2, 4, 4, 5});
  EXPECT_THROW(
      cpu::conv3d.forward(image.value(), Tensor::zeros({2, 4, 3, 3, 3}), {}, options(1, 0, 1, 1), output),
      Error);
}

/// Bias, PReLU and dropout, in whatever order of the work a backend has.
EpilogueInputs epilogue_for(std::int64_t channels, Device device, DType dtype) {
  EpilogueInputs after(Variable(random_tensor({channels}, 6, -0.5, 0.5, dtype).to(device), true));
  after.activation = Activation::prelu;
  after.weight = Variable(random_tensor({channels}, 7, -0.5, 0.5, dtype).to(device), true);
  after.dropout = 0.3;
  after.sequence = {3, 4, 5};
  return after;
}

TEST(Conv3d, GradientsThroughTheEpilogueMatchDifferences) {
  const EpilogueInputs given = epilogue_for(3, Device::cpu(), DType::f64);
  const auto with = [&](const std::vector<Variable>& v) {
    EpilogueInputs after = given;
    after.bias = v[2];
    after.weight = v[3];
    return after;
  };
  const Conv3dOptions options{{2, 1, 2}, {1, 1, 1}};
  const std::vector<Tensor> points{random_tensor({2, 2, 3, 4, 5}, 1, -1, 1, DType::f64),
                                   random_tensor({3, 2, 3, 2, 3}, 2, -1, 1, DType::f64), given.bias.value(),
                                   given.weight.value()};
  GradcheckResult result =
      gradcheck([&](const std::vector<Variable>& v) { return conv3d(v[0], v[1], with(v), options); }, points);
  EXPECT_TRUE(result) << result.message;
  std::vector<Tensor> transposed = points;
  transposed[1] = random_tensor({2, 3, 3, 2, 3}, 2, -1, 1, DType::f64);
  result = gradcheck(
      [&](const std::vector<Variable>& v) { return conv_transpose3d(v[0], v[1], with(v), options); },
      transposed);
  EXPECT_TRUE(result) << result.message;
}

class Conv3dOn : public OnDevice {};
CINNABAR_ON_EACH_DEVICE(Conv3dOn);

TEST_P(Conv3dOn, AgreesWithTheReferenceAssignsAndRepeats) {
  for (const auto& list : {kCases, kLarger}) {
    for (const ConvCase& plain : list) {
      const auto expected = run_reference(plain);
      for (const ConvCase& c : on_every_backend(device(), plain)) {
        const auto found = run_all(device(), DType::f32, c);
        expect_close(found, expected, tolerance_of(c), c);
        const auto again = run_all(device(), DType::f32, c);
        for (std::size_t k = 0; k < 3; ++k) EXPECT_TRUE(same_values(found[k], again[k])) << k << " of " << c;
      }
    }
  }
}

TEST_P(Conv3dOn, EndsWithTheEpilogueAsAnOpOfItsOwn) {
  const ConvCase plain{{2, 4, 5, 7, 9}, {6, 2, 3, 3, 3}, {{1, 1, 1}, {1, 1, 1}, {1, 1, 1}, 2}};
  for (const ConvCase& c : on_every_backend(device(), plain)) {
    const Variable input(random_tensor(c.input, 1).to(device()));
    const Variable weight(random_tensor(c.weight, 2).to(device()));
    const EpilogueInputs after = epilogue_for(6, device(), DType::f32);
    const Variable fused = conv3d(input, weight, after, c.options);
    const Variable one_by_one = epilogue(conv3d(input, weight, {}, c.options), after);
    EXPECT_TRUE(same_values(fused.value(), one_by_one.value())) << c;
    const Variable back(random_tensor(fused.shape(), 3).to(device()));
    const EpilogueInputs after_back = epilogue_for(4, device(), DType::f32);
    EXPECT_TRUE(same_values(conv_transpose3d(back, weight, after_back, c.options).value(),
                            epilogue(conv_transpose3d(back, weight, {}, c.options), after_back).value()))
        << c;
  }
}

TEST_P(Conv3dOn, FewerOutputPositionsAreTheFirstOnes) {
  const Tensor input = random_tensor({1, 2, 5, 6, 7}, 1).to(device());
  const Tensor weight = random_tensor({3, 2, 3, 3, 3}, 2).to(device());
  Tensor whole = poisoned({1, 3, 3, 4, 5}, DType::f32, device());
  Tensor part = poisoned({1, 3, 2, 1, 4}, DType::f32, device());
  conv3d_on(device()).forward(input, weight, {}, {}, whole);
  conv3d_on(device()).forward(input, weight, {}, {}, part);
  const auto all = whole.to_vector<float>();
  const auto some = part.to_vector<float>();
  for (std::size_t c = 0; c < 3; ++c) {
    for (std::size_t d = 0; d < 2; ++d) {
      for (std::size_t w = 0; w < 4; ++w) {
        EXPECT_NEAR(some[(c * 2 + d) * 4 + w], all[(c * 3 + d) * 20 + w], 1e-5) << c << d << w;
      }
    }
  }
}

TEST_P(Conv3dOn, AnEmptyBatchGivesNoOutputAndZeroWeightGradient) {
  const ConvCase c{{0, 2, 3, 4, 5}, {3, 2, 2, 2, 2}, {}};
  const auto found = run_all(device(), DType::f32, c);
  EXPECT_EQ(found[0].shape(), (Shape{0, 3, 2, 3, 4}));
  EXPECT_TRUE(same_values(found[2], Tensor::zeros(c.weight)));
}

TEST_P(Conv3dOn, NanStaysWithinReachOfItsTaps) {
  Tensor input = Tensor::zeros({1, 1, 1, 1, 9});
  input.data<float>()[4] = std::numeric_limits<float>::quiet_NaN();
  Tensor output = Tensor::empty({1, 1, 1, 1, 9}, DType::f32, device());
  conv3d_on(device()).forward(input.to(device()), Tensor::full({1, 1, 1, 1, 3}, 1.0).to(device()), {},
                              {{1, 1, 1}, {0, 0, 1}}, output);
  const auto values = output.to_vector<float>();
  for (std::size_t i = 0; i < 9; ++i) EXPECT_EQ(std::isnan(values[i]), i >= 3 && i <= 5) << i;
}

TEST(Conv3dOnCuda, AsksForFloat32AndABackendItHas) {
  if (cuda_status().device_count == 0) GTEST_SKIP() << cuda_status().reason;
  const auto zeros = [](const Shape& shape, DType dtype) {
    return Variable(Tensor::zeros(shape, dtype, Device::cuda()));
  };
  Conv3dOptions options;
  for (const Backend backend : {Backend::direct, Backend::fft, Backend::cudnn}) {
    options.backend = backend;
    EXPECT_THROW(conv3d(zeros({1, 1, 2, 2, 2}, DType::f64), zeros({1, 1, 1, 1, 1}, DType::f64), {}, options),
                 Error);
  }
  options.backend = Backend::gemm;
  EXPECT_THROW(conv3d(zeros({1, 1, 2, 2, 2}, DType::f32), zeros({1, 1, 1, 1, 1}, DType::f32), {}, options),
               Error);
}

}  // namespace
}  // namespace cinnabar::testing
