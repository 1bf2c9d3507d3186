#include "kernels/conv3d_choice.hpp"

#include <gtest/gtest.h>

#include <cstdlib>

#include "autograd/conv3d.hpp"
#include "tests/devices.hpp"
#include "tests/scratch_folder.hpp"
#include "tests/tensors.hpp"
#include "tests/threads.hpp"

namespace cinnabar::testing {
namespace {

using Backend = Conv3dBackend;

/// The folder that this process's cache of choices lies in, set before its first use.
const ScratchFolder& cache_folder() {
  static const ScratchFolder folder;
  static const int status = ::setenv("CINNABAR_CACHE_DIR", folder.path().c_str(), 1);
  (void)status;
  return folder;
}

std::string kept_choices() {
  return read_bytes(cache_folder() / "choices.txt");
}

class Conv3dChoice : public OnDevice {
 protected:
  void SetUp() override {
    cache_folder();
    OnDevice::SetUp();
  }
  Tensor image(const Shape& shape) const { return random_tensor(shape, 1).to(device()); }
};
CINNABAR_ON_EACH_DEVICE(Conv3dChoice);

/// The backend that automatic takes for a convolution of some images, and how often it ran any.
struct Outcome {
  Backend backend;
  int runs = 0;
};

Outcome choose(const Tensor& input, const Conv3dOptions& options = {}, Backend wanted = Backend::automatic) {
  const Tensor weight = Tensor::zeros({2, input.shape(1), 3, 3, 3}, input.dtype(), input.device());
  const Tensor output = Tensor::zeros(conv3d_output_shape(input.shape(), weight.shape(), options),
                                      input.dtype(), input.device());
  Outcome outcome{};
  Conv3dOptions named = options;
  named.backend = wanted;
  outcome.backend =
      choose_conv3d_backend(named, Backend::gemm, Conv3dPass::forward,
                            conv3d_shape(input, weight, output, options), output, [&](Backend backend) {
                              ++outcome.runs;
                              if (backend != Backend::fft) fail("test", "slow");
                            });
  return outcome;
}

TEST_P(Conv3dChoice, IsMeasuredOnceForAShape) {
  const Outcome first = choose(image({1, 2, 4, 5, 6}));
  EXPECT_EQ(first.backend, Backend::fft) << "the others fail";
  EXPECT_GT(first.runs, 2);
  EXPECT_EQ(choose(image({1, 2, 4, 5, 6})).runs, 0);
  EXPECT_GT(choose(image({1, 2, 4, 5, 7})).runs, 2);
  EXPECT_NE(
      kept_choices().find("\nfft conv3d forward f32 1x1x2->2, 4->2 kernel 3 stride 1 padding 0 dilation 1, "),
      std::string::npos)
      << kept_choices();
}

TEST_P(Conv3dChoice, IsNotMeasuredWithoutNeed) {
  EXPECT_EQ(choose(image({1, 2, 5, 5, 5}), {}, Backend::by_rule).backend, Backend::gemm);
  EXPECT_EQ(choose(image({1, 2, 5, 5, 5}), {}, Backend::by_rule).runs, 0);
  EXPECT_EQ(choose(image({1, 2, 5, 5, 5}), {}, Backend::fft).runs, 0);
  if (conv3d_has_backend(device(), Backend::cudnn)) GTEST_SKIP() << "cuDNN strides too";
  const Conv3dOptions strided{{2, 2, 2}};
  const Outcome only = choose(image({1, 2, 5, 5, 5}), strided);
  EXPECT_EQ(only.backend, device().is_cpu() ? Backend::gemm : Backend::direct);
  EXPECT_EQ(only.runs, 0) << "nothing else can stride";
}

TEST_P(Conv3dChoice, GivesTheBitsOfTheBackendItTook) {
  const Tensor input = image({2, 3, 6, 5, 4});
  const Tensor weight = random_tensor({4, 3, 3, 3, 3}, 2).to(device());
  const auto result_by = [&](Backend backend) {
    Conv3dOptions options;
    options.backend = backend;
    Tensor output = poisoned({2, 4, 4, 3, 2}, DType::f32, device());
    Tensor grad_input = poisoned_like(input), grad_weight = poisoned_like(weight);
    const Conv3d& kernels = conv3d_on(device());
    kernels.forward(input, weight, {}, options, output);
    kernels.backward_input(output, weight, {}, options, grad_input);
    kernels.backward_weight(output, input, options, grad_weight);
    return std::vector<Tensor>{output, grad_input, grad_weight};
  };
  const auto first = result_by(Backend::automatic);
  const auto again = result_by(Backend::automatic);
  const auto expected = result_by(Backend::by_rule);
  for (std::size_t k = 0; k < 3; ++k) {
    EXPECT_TRUE(same_values(first[k], again[k])) << k;
    EXPECT_LE(relative_error(first[k], expected[k]), 2e-6) << k;
  }
  for (const char* pass : {"forward", "backward_input", "backward_weight"}) {
    EXPECT_NE(kept_choices().find(std::string(" conv3d ") + pass + " f32 2x1x3->4, 6->4"), std::string::npos);
  }
}

TEST(Conv3dChoiceOnCpu, DependsOnTheNumberOfThreads) {
  cache_folder();
  const Tensor input = random_tensor({1, 2, 3, 3, 9}, 1);
  EXPECT_GT(on_threads(1, [&] { return choose(input).runs; }), 0);
  EXPECT_GT(on_threads(3, [&] { return choose(input).runs; }), 0);
  EXPECT_EQ(on_threads(1, [&] { return choose(input).runs; }), 0);
}

TEST(Conv3dBackendNames, AreReadAndWritten) {
  for (const Backend backend : {Backend::by_rule, Backend::automatic, Backend::reference, Backend::gemm,
                                Backend::fft, Backend::direct, Backend::mma, Backend::cudnn}) {
    EXPECT_EQ(parse_conv3d_backend(name_of(backend)), backend);
  }
  EXPECT_THROW(parse_conv3d_backend("fastest"), InputError);
  EXPECT_THROW(parse_conv3d_backend(""), InputError);
}

TEST(Conv3dBackendNames, AreRefusedWhereTheDeviceLacksThem) {
  EXPECT_THROW(choose(Tensor::zeros({1, 2, 5, 5, 5}), {{1, 2, 1}}, Backend::direct), Error);
  EXPECT_THROW(choose(Tensor::zeros({1, 2, 5, 5, 5}), {{1, 1, 1}, {1, 3, 1}}, Backend::direct), Error);
  EXPECT_THROW(choose(Tensor::zeros({1, 2, 5, 5, 5}), {}, Backend::cudnn), Error);
  EXPECT_THROW(choose(Tensor::zeros({1, 2, 5, 5, 5}), {{1, 2, 1}}, Backend::fft), Error);
}

}  // namespace
}  // namespace cinnabar::testing
