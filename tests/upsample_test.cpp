#include "autograd/upsample.hpp"

#include <gtest/gtest.h>

#include "autograd/gradcheck.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

std::vector<Tensor> run_all(Device device, DType dtype, const Tensor& input, const Tensor& grad_output,
                            const UpsampleOptions& options) {
  Tensor output = poisoned(grad_output.shape(), dtype, device);
  Tensor grad_input = poisoned(input.shape(), dtype, device);
  upsample_on(device).forward(input.to(dtype).to(device), options, output);
  upsample_on(device).backward(grad_output.to(dtype).to(device), options, grad_input);
  return {output, grad_input};
}

TEST(Upsample, DoublesARow) {
  const Variable row(Tensor::from<float>({0, 4, 8}, {1, 1, 1, 3}));
  const auto doubled = upsample_by(row, {1, 2}).value().to_vector<float>();
  EXPECT_EQ(doubled, (std::vector<float>{0, 1, 3, 5, 7, 8}));
  const auto stretched = upsample_to(row, {1, 5}, Interpolation::linear, true).value().to_vector<float>();
  EXPECT_EQ(stretched, (std::vector<float>{0, 2, 4, 6, 8}));
  const auto nearest = upsample_to(row, {1, 5}, Interpolation::nearest).value().to_vector<float>();
  EXPECT_EQ(nearest, (std::vector<float>{0, 0, 4, 4, 8}));
}

TEST(Upsample, GradientsMatchDifferences) {
  const Tensor deep = random_tensor({1, 2, 3, 4, 5}, 1, -1, 1, DType::f64);
  const Tensor flat = random_tensor({2, 1, 3, 4}, 2, -1, 1, DType::f64);
  for (const auto interpolation : {Interpolation::linear, Interpolation::nearest}) {
    for (const bool align : {false, true}) {
      for (const Shape& spatial : {Shape{6, 7, 11}, Shape{2, 1, 3}, Shape{3, 9, 2}}) {
        const auto fn = [&](const std::vector<Variable>& in) {
          return upsample_to(in[0], spatial, interpolation, align);
        };
        const GradcheckResult result = gradcheck(fn, {deep});
        EXPECT_TRUE(result) << spatial << ' ' << align << '\n' << result.message;
      }
      const auto by = [&](const std::vector<Variable>& in) {
        return upsample_by(in[0], {1.7, 0.6}, interpolation, align);
      };
      EXPECT_TRUE(gradcheck(by, {flat}));
    }
  }
}

TEST(Upsample, GradcheckRejectsTheOtherAlignment) {
  const auto wrong = [](const std::vector<Variable>& in) {
    const Tensor input = in[0].value();
    return record_one("wrong", upsample_to(in[0], {5, 7}).value(), in, [=](const Tensor& grad) {
      return std::vector<Tensor>{
          run_all(Device::cpu(), DType::f64, input, grad, {Interpolation::linear, true, {}})[1]};
    });
  };
  EXPECT_FALSE(gradcheck(wrong, {random_tensor({1, 1, 3, 4}, 3, -1, 1, DType::f64)}));
}

TEST(Upsample, EveryOutputIsReachedByItsTransposeAtAwkwardRatios) {
  // The gradient of a sum is what every input contributes: the weights add up to the number of outputs.
  for (const std::int64_t in : {1, 2, 3, 7, 30, 97}) {
    for (const std::int64_t out : {1, 2, 3, 5, 31, 64, 193}) {
      for (const bool align : {false, true}) {
        for (const double factor :
             {0.0, static_cast<double>(out) / static_cast<double>(in) + 0.3 / static_cast<double>(in)}) {
          const UpsampleOptions options{Interpolation::linear, align, {factor, 0, 0}};
          const Tensor grad = Tensor::full({1, 1, 1, out}, 1.0);
          double total = 0.0;
          for (const double value :
               run_all(Device::cpu(), DType::f64, Tensor::zeros({1, 1, 1, in}), grad, options)[1]
                   .to_vector<double>()) {
            total += value;
          }
          EXPECT_NEAR(total, static_cast<double>(out), 1e-9)
              << in << " to " << out << ' ' << align << ' ' << factor;
        }
      }
    }
  }
}

TEST(Upsample, RefusesMisfits) {
  const Variable image(Tensor::zeros({1, 1, 3, 4}));
  EXPECT_THROW(upsample_to(image, {1, 2, 3}), Error);
  EXPECT_THROW(upsample_to(image, {0, 3}), Error);
  EXPECT_THROW(upsample_by(image, {2, -1}), Error);
  EXPECT_THROW(upsample_by(image, {0.1, 1}), Error);
  EXPECT_THROW(upsample_to(Variable(Tensor::zeros({3, 4})), {6, 8}), Error);
}

class UpsampleOn : public OnDevice {};

TEST_P(UpsampleOn, AgreesWithFloat64AndAssigns) {
  const Tensor deep = random_tensor({2, 3, 5, 7, 11}, 4);
  const Tensor flat = random_tensor({1, 2, 31, 33}, 5);
  for (const auto interpolation : {Interpolation::linear, Interpolation::nearest}) {
    for (const bool align : {false, true}) {
      const UpsampleOptions options{interpolation, align, {}};
      for (const auto& [input, shape] :
           {std::pair{deep, Shape{2, 3, 10, 13, 23}}, std::pair{deep, Shape{2, 3, 3, 1, 5}},
            std::pair{flat, Shape{1, 2, 67, 17}}}) {
        const Tensor grad = random_tensor(shape, 6);
        const auto expected = run_all(Device::cpu(), DType::f64, input, grad, options);
        const auto actual = run_all(device(), DType::f32, input, grad, options);
        for (std::size_t k = 0; k < 2; ++k) {
          EXPECT_LE(relative_error(actual[k], expected[k]), 1e-6) << k << ' ' << shape << ' ' << align;
        }
      }
    }
  }
}

CINNABAR_ON_EACH_DEVICE(UpsampleOn);

}  // namespace
}  // namespace cinnabar::testing
