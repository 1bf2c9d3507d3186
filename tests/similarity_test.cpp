#include "autograd/similarity.hpp"

#include <gtest/gtest.h>

#include "autograd/elementwise.hpp"
#include "autograd/gradcheck.hpp"
#include "kernels/similarity.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"
#include "tests/threads.hpp"

namespace cinnabar::testing {
namespace {

using Loss = std::function<Variable(const Variable&, const Variable&, const Tensor&)>;

struct Named {
  const char* name;
  Loss loss;
};
const Named kLosses[] = {
    {"ssd", [](const auto& a, const auto& b, const auto& m) { return ssd(a, b, m); }},
    {"mean ssd", [](const auto& a, const auto& b, const auto& m) { return ssd(a, b, m, true); }},
    {"ncc", [](const auto& a, const auto& b, const auto& m) { return ncc_loss(a, b, m); }},
};

/// Loss and gradients of both images on a device.
std::vector<Tensor> run(const Loss& loss, Device device, DType dtype, const Tensor& warped,
                        const Tensor& fixed, const Tensor& mask) {
  const Variable a(warped.to(dtype).to(device), true);
  const Variable b(fixed.to(dtype).to(device), true);
  const Variable value = loss(a, b, mask.defined() ? mask.to(dtype).to(device) : mask);
  value.backward(Tensor::full({}, 1.5, dtype, device));
  return {value.value(), a.grad(), b.grad()};
}

TEST(Similarity, OfSmallImagesByHand) {
  const Variable a(Tensor::from<float>({1, 2, 3, 4}, {1, 1, 4}));
  const Variable b(Tensor::from<float>({1, 0, 3, 8}, {1, 1, 4}));
  const Tensor mask = Tensor::from<float>({1, 1, 1, 0.5}, {1, 1, 4});
  EXPECT_EQ(ssd(a, b).value().item(), 20.0);
  EXPECT_EQ(ssd(a, b, mask).value().item(), 12.0);
  EXPECT_FLOAT_EQ(static_cast<float>(ssd(a, b, mask, true).value().item()), 12.0f / 3.5f);
  EXPECT_EQ(ssd(a, b).shape().rank(), 0);
  EXPECT_NEAR(ncc_loss(a, affine(a, -3.0, 7.0)).value().item(), 2.0, 1e-6);
  EXPECT_NEAR(ncc_loss(a, affine(a, 0.1, 2.0)).value().item(), 0.0, 1e-6);
  const double r = 12.0 / std::sqrt(5.0 * 38.0);  // S_ab / sqrt(S_aa S_bb)
  EXPECT_NEAR(ncc_loss(a, b).value().item(), 1.0 - r, 1e-6);
}

TEST(Similarity, FlatAndFullyMaskedImagesHaveNoGradient) {
  const Tensor image = random_tensor({1, 1, 3, 4}, 1);
  const Tensor flat = Tensor::full({1, 1, 3, 4}, 0.7);
  const Tensor nothing = Tensor::zeros({1, 1, 3, 4});
  const auto with_flat = run(kLosses[2].loss, Device::cpu(), DType::f32, image, flat, {});
  EXPECT_EQ(with_flat[0].item(), 1.0);
  EXPECT_TRUE(same_values(with_flat[1], nothing));
  for (const Named& named : kLosses) {
    const auto masked = run(named.loss, Device::cpu(), DType::f32, image, flat, nothing);
    EXPECT_EQ(masked[0].item(), std::string(named.name) == "ncc" ? 1.0 : 0.0) << named.name;
    EXPECT_TRUE(same_values(masked[1], nothing)) << named.name;
  }
}

TEST(Similarity, GradientsMatchDifferences) {
  const Tensor a = random_tensor({2, 2, 3, 4}, 2, 0, 1, DType::f64);
  const Tensor b = random_tensor({2, 2, 3, 4}, 3, 0, 1, DType::f64);
  for (const Named& named : kLosses) {
    for (const Tensor& mask : {Tensor{}, random_tensor({2, 1, 3, 4}, 4, 0, 1, DType::f64),
                               random_tensor({1, 2, 3, 4}, 5, 0, 1, DType::f64)}) {
      const auto fn = [&](const std::vector<Variable>& in) { return named.loss(in[0], in[1], mask); };
      const GradcheckResult result = gradcheck(fn, {a, b});
      EXPECT_TRUE(result) << named.name << '\n' << result.message;
    }
  }
}

TEST(Similarity, GradcheckRejectsAForgottenMean) {
  const auto wrong = [](const std::vector<Variable>& in) {
    const Tensor a = in[0].value();
    const Tensor b = in[1].value();
    return record_one("wrong", ncc_loss(in[0], in[1]).value(), in, [=](const Tensor& grad) {
      Tensor sums = Tensor::zeros({1, kNccSums}, DType::f64);
      Tensor loss = Tensor::zeros({}, DType::f64);
      const Similarity& kernels = similarity_on(Device::cpu());
      kernels.ncc(a, b, {}, sums, loss);
      sums.data<double>()[1] = 0.0;
      std::vector<Tensor> grads{Tensor::empty_like(a), Tensor::empty_like(b)};
      kernels.ncc_backward(grad, a, b, {}, sums, grads[0], grads[1]);
      return grads;
    });
  };
  EXPECT_FALSE(gradcheck(wrong, {random_tensor({1, 1, 3, 4}, 6, 0, 1, DType::f64),
                                 random_tensor({1, 1, 3, 4}, 7, 0, 1, DType::f64)}));
}

TEST(Similarity, BitsDoNotDependOnTheNumberOfThreads) {
  const Tensor a = random_tensor({2, 1, 47, 49, 51}, 8);
  const Tensor b = random_tensor({2, 1, 47, 49, 51}, 9);
  for (const Named& named : kLosses) {
    const auto compute = [&] { return run(named.loss, Device::cpu(), DType::f32, a, b, {}); };
    const auto one = on_threads(1, compute);
    const auto three = on_threads(3, compute);
    for (std::size_t k = 0; k < 3; ++k) EXPECT_TRUE(same_values(one[k], three[k])) << named.name << k;
  }
}

TEST(Similarity, RefusesMisfits) {
  const Variable a(Tensor::zeros({2, 1, 3, 4}));
  for (const Named& named : kLosses) {
    EXPECT_THROW(named.loss(a, Variable(Tensor::zeros({2, 1, 4, 3})), {}), Error);
    EXPECT_THROW(named.loss(a, Variable(Tensor::zeros({2, 1, 3, 4}, DType::f64)), {}), Error);
    EXPECT_THROW(named.loss(a, a, Tensor::zeros({3, 1, 3, 4})), Error);
    EXPECT_THROW(named.loss(a, a, Tensor::zeros({3, 4})), Error);
    EXPECT_THROW(named.loss(Variable(Tensor::zeros({4})), Variable(Tensor::zeros({4})), {}), Error);
  }
}

class SimilarityOn : public OnDevice {};

TEST_P(SimilarityOn, AgreesWithFloat64) {
  // Intensities far from zero are what cancels in float32.
  const Tensor a = random_tensor({3, 2, 9, 21, 31}, 10, 5.0, 6.0);
  const Tensor b = random_tensor({3, 2, 9, 21, 31}, 11, -3.0, -2.0);
  for (const Named& named : kLosses) {
    for (const Tensor& mask : {Tensor{}, random_tensor({3, 1, 9, 21, 31}, 12, 0, 1)}) {
      const auto expected = run(named.loss, Device::cpu(), DType::f64, a, b, mask);
      const auto actual = run(named.loss, device(), DType::f32, a, b, mask);
      const auto again = run(named.loss, device(), DType::f32, a, b, mask);
      for (std::size_t k = 0; k < 3; ++k) {
        EXPECT_LE(relative_error(actual[k], expected[k]), 5e-6) << named.name << ' ' << k;
        EXPECT_TRUE(same_values(actual[k], again[k])) << named.name << ' ' << k;
      }
    }
  }
}

TEST_P(SimilarityOn, AssignsTheGradientsThatAreWantedAndNoOther) {
  const Tensor a = random_tensor({1, 1, 5, 7}, 13).to(device());
  const Tensor b = random_tensor({1, 1, 5, 7}, 14).to(device());
  const Similarity& kernels = similarity_on(device());
  Tensor sums = poisoned({1, kSsdSums}, DType::f64, device());
  Tensor loss = poisoned({}, DType::f32, device());
  kernels.ssd(a, b, {}, false, sums, loss);
  Tensor grad = poisoned_like(a);
  Tensor none;
  kernels.ssd_backward(loss, a, b, {}, false, sums, none, grad);
  for (const float value : grad.to_vector<float>()) EXPECT_FALSE(std::isnan(value));
}

CINNABAR_ON_EACH_DEVICE(SimilarityOn);

}  // namespace
}  // namespace cinnabar::testing
