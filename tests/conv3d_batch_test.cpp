#include <gtest/gtest.h>

#include "kernels/conv3d_precision.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"

// The batch that an image is in changes none of its bits.

namespace cinnabar::testing {
namespace {

using Backend = Conv3dBackend;

/// Images first..first+count-1 of nine: their outputs, and the gradients of their inputs.
std::vector<Tensor> run_images(Device device, const Shape& input, const Shape& weight,
                               const Conv3dOptions& options, std::int64_t first, std::int64_t count) {
  const Shape output = conv3d_output_shape(input, weight, options);
  const auto images = [&](const Shape& shape, std::uint64_t seed) {
    return random_tensor(shape, seed).rows(first, count).to(device);
  };
  const Tensor weights = random_tensor(weight, 2).to(device);
  Tensor outputs = poisoned(output.with(0, count), DType::f32, device);
  Tensor gradients = poisoned(input.with(0, count), DType::f32, device);
  conv3d_on(device).forward(images(input, 1), weights, {}, options, outputs);
  conv3d_on(device).backward_input(images(output, 3), weights, {}, options, gradients);
  return {outputs, gradients};
}

void expect_same_bits_in_any_batch(Device device, const Shape& input, const Shape& weight,
                                   const Conv3dOptions& options) {
  SCOPED_TRACE(name_of(options.precision));
  const std::vector<Tensor> all = run_images(device, input, weight, options, 0, 9);
  for (const auto& [first, count] : {std::pair{0, 1}, std::pair{3, 2}, std::pair{4, 5}}) {
    const std::vector<Tensor> some = run_images(device, input, weight, options, first, count);
    EXPECT_TRUE(same_values(some[0], all[0].rows(first, count))) << "outputs of " << count;
    EXPECT_TRUE(same_values(some[1], all[1].rows(first, count))) << "gradients of " << count;
  }
}

class Conv3dBatchOn : public OnDevice {};
CINNABAR_ON_EACH_DEVICE(Conv3dBatchOn);

TEST_P(Conv3dBatchOn, ByRuleAnImagesBitsAreItsOwn) {
  using enum Conv3dPrecision;
  for (const Conv3dPrecision precision : {fp32, fp16}) {
    Conv3dOptions same{{1, 1, 1}, {1, 1, 1}}, halved{{2, 2, 2}, {1, 1, 1}};
    same.precision = halved.precision = precision;
    expect_same_bits_in_any_batch(device(), {9, 16, 8, 8, 8}, {16, 16, 3, 3, 3}, same);
    expect_same_bits_in_any_batch(device(), {9, 17, 9, 8, 7}, {65, 17, 3, 3, 3}, halved);
  }
}

TEST(Conv3dBatch, ByEveryBackendOfTheCpuToo) {
  for (const Backend backend : {Backend::reference, Backend::gemm, Backend::direct, Backend::fft}) {
    Conv3dOptions options{{1, 1, 1}, {1, 1, 1}};
    options.backend = backend;
    SCOPED_TRACE(static_cast<int>(backend));
    expect_same_bits_in_any_batch(Device::cpu(), {9, 16, 8, 8, 8}, {16, 16, 3, 3, 3}, options);
  }
}

TEST(Conv3dBatch, TheRuleTakesOneBackendForAllBatches) {
  // With two channels transforms begin to pay, the sooner the more images there are.
  for (const std::int64_t channels : {1, 2, 4, 8, 12, 16, 24}) {
    SCOPED_TRACE(channels);
    expect_same_bits_in_any_batch(Device::cpu(), {9, channels, 8, 8, 8}, {channels, channels, 3, 3, 3},
                                  {{1, 1, 1}, {1, 1, 1}});
  }
}

}  // namespace
}  // namespace cinnabar::testing
