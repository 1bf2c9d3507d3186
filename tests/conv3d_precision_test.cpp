#include "kernels/conv3d_precision.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <limits>

#include "autograd/conv3d.hpp"
#include "autograd/elementwise.hpp"
#include "autograd/reduce.hpp"
#include "tests/conv3d_cases.hpp"
#include "tests/devices.hpp"
#include "tests/threads.hpp"

// Convolutions of rounded operands: what the rounding is, and that every backend sums just those products.

namespace cinnabar::testing {
namespace {

using Precision = Conv3dPrecision;

constexpr Precision kRounded[] = {Precision::tf32, Precision::fp16, Precision::bf16};

/// Largest || rounded - exact || / || exact || that a precision may cost.
double allowed(Precision precision) {
  return precision == Precision::tf32 ? 1e-3 : 1e-2;
}

double error_of_norms(const Tensor& actual, const Tensor& expected) {
  const std::vector<double> a = actual.to_vector<double>(), e = expected.to_vector<double>();
  double error = 0.0, size = 0.0;
  for (std::size_t i = 0; i < e.size(); ++i) {
    error += (a[i] - e[i]) * (a[i] - e[i]);
    size += e[i] * e[i];
  }
  return std::sqrt(error / size);
}

struct Rounding {
  float from;
  float tf32, fp16, bf16;
};

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kMax = std::numeric_limits<float>::max();

/// Exact values, ties to the even neighbour below and above, their neighbours, subnormals, and what is too
/// large.
const std::vector<Rounding> kRoundings = {
    {0.0f, 0.0f, 0.0f, 0.0f},
    {-1.0f, -1.0f, -1.0f, -1.0f},
    {0x1.004p0f, 0x1.004p0f, 0x1.004p0f, 1.0f},
    {0x1.002p0f, 1.0f, 1.0f, 1.0f},                    // a tie of 10 bits, to the even 1
    {0x1.006p0f, 0x1.008p0f, 0x1.008p0f, 1.0f},        // a tie, to the even neighbour above
    {0x1.002002p0f, 0x1.004p0f, 0x1.004p0f, 1.0f},     // just above a tie
    {-0x1.001ffep0f, -1.0f, -1.0f, -1.0f},             // just below
    {0x1.01p0f, 0x1.01p0f, 0x1.01p0f, 1.0f},           // a tie of 7 bits
    {-0x1.03p0f, -0x1.03p0f, -0x1.03p0f, -0x1.04p0f},  // the other one
    {0x1.fffp0f, 2.0f, 2.0f, 2.0f},                    // carries into the exponent
    {65504.0f, 65504.0f, 65504.0f, 65536.0f},
    {65519.0f, 65504.0f, 65504.0f, 65536.0f},
    {65520.0f, 65536.0f, kInf, 65536.0f},
    {-1e6f, -0x1.e84p19f, -kInf, -0x1.e8p19f},
    {kMax, kInf, kInf, kInf},
    {0x1.fep127f, 0x1.fep127f, kInf, 0x1.fep127f},
    {-kInf, -kInf, -kInf, -kInf},
    {0x1.004p-15f, 0x1.004p-15f, 0x1p-15f, 0x1p-15f},  // a subnormal half has the unit 2^-24
    {0x1.5p-23f, 0x1.5p-23f, 0x1.8p-23f, 0x1.5p-23f},  // 2.625 of them
    {-0x1p-25f, -0x1p-25f, -0.0f, -0x1p-25f},          // half of one, a tie with 0
    {0x1.8p-24f, 0x1.8p-24f, 0x1p-23f, 0x1.8p-24f},    // one and a half, a tie
    {0x1.00001p-25f, 0x1p-25f, 0x1p-24f, 0x1p-25f},    // just above half of one
    {0x1p-137f, 0.0f, 0.0f, 0.0f},                     // half of the last bit of a subnormal, a tie with 0
    {0x1.8p-136f, 0x1p-135f, 0.0f, 0.0f},              // one and a half
    {0x1.8p-133f, 0x1.8p-133f, 0.0f, 0x1p-132f},
};

class Conv3dPrecisionOn : public OnDevice {};
CINNABAR_ON_EACH_DEVICE(Conv3dPrecisionOn);

TEST_P(Conv3dPrecisionOn, RoundsToNearestAndTiesToEven) {
  const auto bits = [](float x) { return std::bit_cast<std::uint32_t>(x); };
  for (const Rounding& one : kRoundings) {
    for (const Precision precision : kRounded) {
      const Tensor from = Tensor::from<float>({one.from, -one.from}, {2}).to(device());
      const auto found = rounded_operand(from, precision).to_vector<float>();
      const float expected = precision == Precision::tf32   ? one.tf32
                             : precision == Precision::fp16 ? one.fp16
                                                            : one.bf16;
      EXPECT_EQ(bits(found[0]), bits(expected))
          << one.from << " in " << name_of(precision) << ": " << found[0];
      EXPECT_EQ(bits(found[1]), bits(-expected)) << -one.from << " in " << name_of(precision);
    }
  }
  for (const Precision precision : kRounded) {
    const std::uint32_t all = 0x7fffffffu, last = 0xff800001u;
    const Tensor from = Tensor::from<float>({std::bit_cast<float>(all), std::bit_cast<float>(last)}, {2});
    for (const float x : rounded_operand(from.to(device()), precision).to_vector<float>()) {
      EXPECT_TRUE(std::isnan(x)) << name_of(precision);
    }
  }
}

TEST_P(Conv3dPrecisionOn, RoundsAFewBitsAndNothingTwice) {
  const Tensor from = random_tensor({3, 7, 31, 33}, 1, -3, 3).to(device());
  EXPECT_TRUE(same_values(rounded_operand(from, Precision::fp32), from));
  for (const Precision precision : kRounded) {
    const Tensor once = rounded_operand(from, precision);
    EXPECT_TRUE(same_values(rounded_operand(once, precision), once));
    const double error = error_of_norms(once, from);
    EXPECT_GT(error, precision == Precision::bf16 ? 1e-3 : 1e-4);
    EXPECT_LT(error, precision == Precision::bf16 ? 2e-3 : 2.5e-4);
  }
}

TEST_P(Conv3dPrecisionOn, EveryBackendSumsTheProductsOfRoundedOperands) {
  for (const Precision precision : kRounded) {
    for (const auto& list : {kCases, kLarger}) {
      for (const ConvCase& plain : list) {
        // The largest would take the emulator a minute; the tile sizes are in the others.
        if (device().is_cuda() && cuda_is_emulated() && plain.input.numel() > 100'000) continue;
        const ConvCase rounded = with_precision(plain, precision);
        const auto expected = run_reference(rounded);
        for (const ConvCase& c : on_every_backend(device(), rounded)) {
          expect_close(run_all(device(), DType::f32, c), expected, tolerance_of(c), c);
        }
      }
    }
  }
}

TEST_P(Conv3dPrecisionOn, Repeats) {
  for (const Precision precision : kRounded) {
    const auto bits = [&] { return run_all(device(), DType::f32, with_precision(kCases[2], precision)); };
    const auto first = bits(), second = bits();
    for (std::size_t k = 0; k < 3; ++k) EXPECT_TRUE(same_values(first[k], second[k])) << k;
  }
}

TEST_P(Conv3dPrecisionOn, CostsWhatItIsAllowedTo) {
  const ConvCase exact = kLarger[0];
  const auto expected = run_reference(exact);
  for (const Precision precision : kRounded) {
    const auto found = run_all(device(), DType::f32, with_precision(exact, precision));
    for (std::size_t k = 0; k < 3; ++k) {
      const double error = error_of_norms(found[k], expected[k]);
      EXPECT_GT(error, precision == Precision::bf16 ? 5e-4 : 5e-5) << name_of(precision) << k;
      EXPECT_LT(error, allowed(precision)) << name_of(precision) << k;
    }
  }
}

TEST_P(Conv3dPrecisionOn, TheOverflowOfAnOperandShows) {
  Tensor input = Tensor::full({1, 1, 1, 1, 40}, 1.0);
  input.data<float>()[20] = 7e4f;
  Conv3dOptions options{{1, 1, 1}, {0, 0, 1}};
  options.backend = device().is_cpu() ? Conv3dBackend::gemm : Conv3dBackend::by_rule;
  const Tensor weight = Tensor::full({1, 1, 1, 1, 3}, 1.0).to(device());
  for (const Precision precision : kRounded) {
    options.precision = precision;
    Tensor output = poisoned({1, 1, 1, 1, 40}, DType::f32, device());
    conv3d_on(device()).forward(input.to(device()), weight, {}, options, output);
    const auto values = output.to_vector<float>();
    for (std::size_t i = 0; i < 40; ++i) {
      const bool overflown = precision == Precision::fp16 && i >= 19 && i <= 21;
      EXPECT_EQ(values[i] == kInf, overflown) << i << " in " << name_of(precision) << ": " << values[i];
    }
  }
}

TEST_P(Conv3dPrecisionOn, GradientsPointWhereTheFunctionGrows) {
  // The function is linear in each input but for the rounding, so a long step shows its slope.
  constexpr double kStep = 0.5;
  const auto tensor = [&](const Shape& shape, std::uint64_t seed) {
    return random_tensor(shape, seed).to(device());
  };
  for (const Precision precision : kRounded) {
    for (const bool transposed : {false, true}) {
      Conv3dOptions options{{2, 1, 1}, {1, 1, 1}};
      options.precision = precision;
      const auto function = [&](const Variable& x, const Variable& w) {
        const Variable y = transposed ? conv_transpose3d(x, w, {}, options) : conv3d(x, w, {}, options);
        return sum(y * Variable(tensor(y.shape(), 3)));
      };
      const Variable x(tensor({2, 5, 5, 7, 6}, 1), true), w(tensor({5, 5, 3, 3, 3}, 2), true);
      function(x, w).backward();
      for (const bool of_input : {true, false}) {
        const Variable& at = of_input ? x : w;
        const Variable gradient(at.grad());
        const double mean_square =
            sum(square(gradient)).value().item() / static_cast<double>(at.shape().numel());
        const auto moved = [&](double by) {
          const Variable there = add(at.detach(), scale(gradient, by / std::sqrt(mean_square)));
          return (of_input ? function(there, w) : function(x, there)).value().item();
        };
        const double slope = std::sqrt(mean_square) * static_cast<double>(at.shape().numel());
        EXPECT_NEAR((moved(kStep) - moved(-kStep)) / (2 * kStep * slope), 1.0, allowed(precision))
            << name_of(precision) << transposed << of_input;
      }
    }
  }
}

TEST(Conv3dPrecision, BitsDoNotDependOnTheNumberOfThreads) {
  const ConvCase plain{{3, 6, 9, 11, 13}, {8, 6, 3, 3, 3}, {{1, 1, 1}, {1, 1, 1}, {1, 1, 1}, 1}};
  for (const Precision precision : kRounded) {
    for (const ConvCase& c : on_every_backend(Device::cpu(), with_precision(plain, precision))) {
      const auto compute = [&] { return run_all(Device::cpu(), DType::f32, c); };
      const auto alone = on_threads(1, compute), shared = on_threads(3, compute);
      for (std::size_t k = 0; k < 3; ++k) EXPECT_TRUE(same_values(alone[k], shared[k])) << k << " of " << c;
    }
  }
}

TEST(Conv3dPrecision, IsForFloat32) {
  Conv3dOptions options;
  options.precision = Precision::bf16;
  const auto zeros = [](DType dtype) { return Variable(Tensor::zeros({1, 1, 2, 2, 2}, dtype)); };
  EXPECT_NO_THROW(conv3d(zeros(DType::f32), zeros(DType::f32), {}, options));
  EXPECT_THROW(conv3d(zeros(DType::f64), zeros(DType::f64), {}, options), Error);
  EXPECT_THROW(rounded_operand(Tensor::zeros({2}, DType::f64), Precision::fp16), Error);
}

TEST(Conv3dPrecision, HasNames) {
  for (const Precision precision : {Precision::fp32, Precision::tf32, Precision::fp16, Precision::bf16}) {
    EXPECT_EQ(parse_conv3d_precision(name_of(precision)), precision);
  }
  EXPECT_THROW(parse_conv3d_precision("f16"), InputError);
  EXPECT_THROW(parse_conv3d_precision(""), InputError);
}

}  // namespace
}  // namespace cinnabar::testing
