#include "models/quicksilver_widen.hpp"

#include <gtest/gtest.h>

#include "autograd/losses.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

const QuicksilverOptions kNarrow{.features = 2, .patch = {6, 7, 5}, .seed = 3};

Tensor patches() {
  return random_tensor({2, 2, 6, 7, 5}, 1);
}

/// Relative to the largest output.
double change(Quicksilver& a, Quicksilver& b) {
  const NoGrad quiet;
  return relative_error(b(Variable(patches())).value(), a(Variable(patches())).value());
}

TEST(QuicksilverWiden, TheWideNetworkComputesTheSame) {
  Quicksilver narrow(kNarrow);
  for (const std::int64_t features : {2, 4, 6}) {
    const auto wide = widened(narrow, features, 5);
    EXPECT_EQ(wide->options().features, features);
    EXPECT_LE(change(narrow, *wide), 2e-6) << features;
  }
}

TEST(QuicksilverWiden, CopiesLearnDifferentThings) {
  Quicksilver narrow(kNarrow);
  const auto wide = widened(narrow, 4);
  mse_loss((*wide)(Variable(patches())), Variable(random_tensor({2, 3, 6, 7, 5}, 2))).backward();
  for (const auto& [name, parameter] : wide->named_parameters()) {
    if (name != "encoder_m_1.conv_inblock1.bias") continue;
    const std::vector<float> gradient = parameter.grad().to_vector<float>();
    EXPECT_GT(std::abs(gradient[0] - gradient[1]), 1e-3f * std::abs(gradient[0])) << "copies of channel 0";
  }
}

TEST(QuicksilverWiden, SharesFollowFromTheSeed) {
  Quicksilver narrow(kNarrow);
  const std::string weight = "decoder_x_1.conv_inblock1.weight";
  const auto of_seed = [&](std::uint64_t seed) {
    return widened(narrow, 4, seed)->state().tensors.at(weight);
  };
  EXPECT_TRUE(same_values(of_seed(1), of_seed(1)));
  EXPECT_FALSE(same_values(of_seed(1), of_seed(2)));
}

TEST(QuicksilverWiden, RefusesWhatIsNoMultiple) {
  Quicksilver narrow(kNarrow);
  EXPECT_THROW(widened(narrow, 3), InputError);
  EXPECT_THROW(widened(narrow, 1), InputError);
}

}  // namespace
}  // namespace cinnabar::testing
