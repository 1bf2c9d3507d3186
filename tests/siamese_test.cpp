#include "models/siamese.hpp"

#include <gtest/gtest.h>

#include "autograd/elementwise.hpp"
#include "autograd/gradcheck.hpp"
#include "autograd/reduce.hpp"
#include "layers/optimizer.hpp"
#include "tests/devices.hpp"
#include "tests/parameter_gradients.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

const SiameseOptions kTiny{.in = 2, .channels = {3, 4}, .embedding = 2, .seed = 2};

TEST(ContrastiveLoss, IsTheFormula) {
  // Distances 5, 5, 0.5 and 0; pairs together, apart beyond the margin, apart within it, together.
  const Variable a(Tensor::from<float>({3, 4, 3, 4, 0, 0.5f, 1, 1}, {4, 2}));
  const Variable b(Tensor::from<float>({0, 0, 0, 0, 0, 0, 1, 1}, {4, 2}));
  const Tensor same = Tensor::from<float>({1, 0, 0, 1}, {4});
  EXPECT_FLOAT_EQ(static_cast<float>(contrastive_loss(a, b, same, 2.0).value().item()),
                  (12.5f + 0.0f + 0.5f * 1.5f * 1.5f + 0.0f) / 4.0f);
}

TEST(ContrastiveLoss, GradientsMatchDifferences) {
  const Tensor a = random_tensor({6, 3}, 1, -1, 1, DType::f64),
               b = random_tensor({6, 3}, 2, -1, 1, DType::f64);
  const Tensor same = Tensor::from<float>({1, 0, 0, 1, 0, 0}, {6});
  const auto fn = [&](const std::vector<Variable>& in) { return contrastive_loss(in[0], in[1], same, 1.3); };
  const GradcheckResult result = gradcheck(fn, {a, b});
  EXPECT_TRUE(result) << result.message;
}

TEST(ContrastiveLoss, EqualEmbeddingsHaveNoGradient) {
  const Variable a(random_tensor({2, 3}, 1), true), b(a.value().clone(), true);
  contrastive_loss(a, b, Tensor::from<float>({0, 1}, {2})).backward();
  EXPECT_TRUE(same_values(a.grad(), Tensor::zeros({2, 3})));
}

TEST(ContrastiveLoss, RefusesMisfits) {
  const Variable a(Tensor::zeros({2, 3}));
  EXPECT_THROW(contrastive_loss(a, Variable(Tensor::zeros({2, 2})), Tensor::zeros({2})), Error);
  EXPECT_THROW(contrastive_loss(a, a, Tensor::zeros({3})), Error);
  EXPECT_THROW(contrastive_loss(a, a, Tensor::zeros({2}), 0.0), Error);
}

TEST(Siamese, SeesBothImagesThroughTheSameWeights) {
  Siamese net(kTiny);
  const Variable a(random_tensor({2, 2, 3, 5, 4}, 1)), b(random_tensor({2, 2, 3, 5, 4}, 2));
  const auto [ea, eb] = net.embeddings(a, b);
  const auto [eb_first, ea_second] = net.embeddings(b, a);
  EXPECT_EQ(ea.shape(), (Shape{2, 2}));
  EXPECT_TRUE(same_values(ea.value(), ea_second.value()));
  EXPECT_TRUE(same_values(eb.value(), eb_first.value()));
  const auto [fa, fb] = net.features(a, b);
  EXPECT_EQ(fa.shape(), (Shape{2, 4, 2, 3, 2}));
  EXPECT_TRUE(same_values(fb.value(), net.features(b).value()));
}

TEST(Siamese, CorrelationFindsAShift) {
  Siamese net({.channels = {6}, .axes = 2, .seed = 4});
  // The second image is the first one, two pixels to the right.
  const Tensor wide = random_tensor({1, 1, 1, 8, 14}, 3);
  const auto columns = [&](std::int64_t first) {
    std::vector<float> values;
    const auto all = wide.to_vector<float>();
    for (std::size_t y = 0; y < 8; ++y) {
      for (std::size_t x = 0; x < 12; ++x)
        values.push_back(all[14 * y + static_cast<std::size_t>(first) + x]);
    }
    return Variable(Tensor::from(values, {1, 1, 1, 8, 12}));
  };
  const Variable a = columns(2), b = columns(0);
  const Variable local = net.correlation(a, b, {0, 1, 3});
  ASSERT_EQ(local.shape(), (Shape{1, 21, 1, 8, 12}));
  const auto cosine = local.value().to_vector<double>();
  const auto at = [&](std::size_t channel, std::size_t y, std::size_t x) {
    return cosine[(channel * 8 + y) * 12 + x];
  };
  for (std::size_t y = 1; y < 7; ++y) {
    for (std::size_t x = 3; x < 9; ++x) {
      EXPECT_NEAR(at(7 + 5, y, x), 1.0, 1e-5);  // displacement (0, 2)
      for (std::size_t channel = 0; channel < 21; ++channel) EXPECT_LE(at(channel, y, x), 1.0 + 1e-5);
    }
  }
  const Variable all = net.correlation(a, b);
  ASSERT_EQ(all.shape(), (Shape{1, 96, 1, 8, 12}));
  // Pixel (3, 6) of the second image and (3, 4) of the first.
  EXPECT_NEAR(all.value().to_vector<double>()[(3 * 12 + 6) * 96 + 3 * 12 + 4], 1.0, 1e-5);
}

TEST(Siamese, GradientsMatchDifferences) {
  Siamese net(kTiny);
  net.to(DType::f64);
  const Tensor a = random_tensor({2, 2, 2, 3, 4}, 1, -1, 1, DType::f64);
  const Tensor b = random_tensor({2, 2, 2, 3, 4}, 2, -1, 1, DType::f64);
  const auto fn = [&](const std::vector<Variable>& in) {
    const auto [ea, eb] = net.embeddings(in[0], in[1]);
    return std::vector<Variable>{ea, eb, net.correlation(in[0], in[1], {0, 1, 1})};
  };
  const GradcheckResult result = gradcheck(Differentiable(fn), {a, b}, {.max_entries = 30});
  EXPECT_TRUE(result) << result.message;
  const Tensor same = Tensor::from<float>({1, 0}, {2});
  const auto loss = [&] {
    const auto [ea, eb] = net.embeddings(Variable(a), Variable(b));
    return contrastive_loss(ea, eb, same) + sum(square(net.correlation(Variable(a), Variable(b))));
  };
  net.clear_gradients();
  loss().backward();
  for (const auto& [name, parameter] : net.named_parameters()) {
    if (name == "head.0.bias") continue;  // it moves both embeddings alike
    EXPECT_LE(error_along(loss, parameter, parameter.grad()), 1e-5) << name;
  }
}

TEST(Siamese, LearnsWhichPairsBelongTogether) {
  Siamese net({.in = 1, .channels = {4, 8}, .embedding = 2, .axes = 2, .seed = 1});
  // Stripes along x or along y under noise; pairs of equal and of different direction.
  constexpr std::int64_t kPairs = 8;
  const auto images = [&](std::uint64_t seed, const auto& along_x) {
    Tensor batch = random_tensor({kPairs, 1, 1, 8, 8}, seed, -0.3, 0.3);
    for (std::int64_t i = 0; i < batch.numel(); ++i) {
      const std::int64_t place = along_x(i / 64) ? i % 8 : i / 8 % 8;
      batch.data<float>()[i] += place / 2 % 2 == 0 ? 1.0f : -1.0f;
    }
    return Variable(batch);
  };
  const Variable a = images(1, [](std::int64_t n) { return n < 4; });
  const Variable b = images(2, [](std::int64_t n) { return n % 2 == 0; });
  std::vector<float> same;
  for (std::int64_t n = 0; n < kPairs; ++n) same.push_back((n < 4) == (n % 2 == 0) ? 1.0f : 0.0f);
  const auto loss = [&] {
    const auto [ea, eb] = net.embeddings(a, b);
    return contrastive_loss(ea, eb, Tensor::from(same, {kPairs}));
  };
  const double before = loss().value().item();
  Adam adam(net.named_parameters(), {.learning_rate = 1e-2});
  for (int step = 0; step < 60; ++step) {
    adam.clear_gradients();
    loss().backward();
    adam.step();
  }
  EXPECT_LT(loss().value().item(), 0.1 * before);
}

TEST(Siamese, RefusesBadOptionsAndShapes) {
  EXPECT_THROW(Siamese({.channels = {}}), Error);
  EXPECT_THROW(Siamese({.axes = 1}), Error);
  EXPECT_THROW(Siamese({.embedding = 0}), Error);
  Siamese net(kTiny);
  const Variable a(Tensor::zeros({1, 2, 4, 4, 4}));
  EXPECT_THROW(net.embeddings(a, Variable(Tensor::zeros({1, 2, 4, 4, 5}))), Error);
  EXPECT_THROW(net.features(Variable(Tensor::zeros({1, 1, 4, 4, 4}))), Error);
}

class SiameseOn : public OnDevice {};

TEST_P(SiameseOn, AgreesWithTheCpu) {
  Siamese net(kTiny);
  const Tensor a = random_tensor({2, 2, 2, 3, 4}, 1), b = random_tensor({2, 2, 2, 3, 4}, 2);
  const auto run = [&](Device device) {
    net.to(device);
    const Variable first(a.to(device)), second(b.to(device));
    const auto [ea, eb] = net.embeddings(first, second);
    const Tensor same = Tensor::from<float>({1, 0}, {2});
    return std::vector<Tensor>{contrastive_loss(ea, eb, same).value().to(Device::cpu()),
                               net.correlation(first, second, {1, 1, 1}).value().to(Device::cpu()),
                               net.correlation(first, second).value().to(Device::cpu())};
  };
  const std::vector<Tensor> expected = run(Device::cpu()), actual = run(device());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    EXPECT_LE(relative_error(actual[i], expected[i]), 1e-5) << i;
  }
}

CINNABAR_ON_EACH_DEVICE(SiameseOn);

}  // namespace
}  // namespace cinnabar::testing
