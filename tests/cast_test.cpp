#include "autograd/cast.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "autograd/elementwise.hpp"
#include "autograd/gradcheck.hpp"
#include "kernels/cast.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

constexpr DType kSmall[] = {DType::f16, DType::bf16};

/// Every 16-bit pattern, as f16 or bf16.
Tensor all_patterns(DType dtype) {
  Tensor tensor = Tensor::empty({1 << 16}, dtype);
  auto* const bits = static_cast<std::uint16_t*>(tensor.raw());
  for (std::uint32_t i = 0; i <= 0xffffu; ++i) bits[i] = static_cast<std::uint16_t>(i);
  return tensor;
}

/// Floats on both sides of every rounding to 11 or 8 bits: all signs and exponents, the upper mantissa bits
/// in steps, and the lowest bits that make ties, near-ties and exact values. Infinities and NaN included.
Tensor floats_around_roundings() {
  std::vector<float> values;
  for (std::uint32_t high = 0; high < (1u << 16); high += 3) {
    for (const std::uint32_t low : {0u, 1u, 0x0fffu, 0x1000u, 0x1001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      values.push_back(std::bit_cast<float>(high << 16 | low));
    }
  }
  const auto count = static_cast<std::int64_t>(values.size());
  return Tensor::from(values, {count});
}

bool same_bits(const Tensor& a, const Tensor& b) {
  const Tensor p = a.to(Device::cpu());
  const Tensor q = b.to(Device::cpu());
  return p.dtype() == q.dtype() && p.shape() == q.shape() && std::memcmp(p.raw(), q.raw(), p.bytes()) == 0;
}

Tensor converted(const Tensor& from, DType dtype) {
  Tensor to = poisoned(from.shape(), dtype, from.device());
  cast_on(from.device()).convert(from, to);
  return to;
}

class CastOn : public OnDevice {};

// The expected values come from the scalar conversions, which dtype_test checks against the formats'
// definition.
TEST_P(CastOn, EveryHalfAndEveryRoundingIsThatOfTheScalarConversion) {
  for (const DType dtype : kSmall) {
    const Tensor patterns = all_patterns(dtype);
    const Tensor wide = converted(patterns.to(device()), DType::f32);
    EXPECT_TRUE(same_bits(wide, patterns.to(DType::f32))) << dtype;
    const DType other = dtype == DType::f16 ? DType::bf16 : DType::f16;
    EXPECT_TRUE(same_bits(converted(patterns.to(device()), other), patterns.to(other))) << dtype;
    const Tensor floats = floats_around_roundings();
    EXPECT_TRUE(same_bits(converted(floats.to(device()), dtype), floats.to(dtype))) << dtype;
  }
}

TEST_P(CastOn, AnySizeAndOffsetIsAssigned) {
  for (const std::int64_t count : {1, 7, 8, 9, 2047, 2049}) {
    const Tensor x = random_tensor({count + 3}, 1, -100, 100).to(device());
    for (const std::int64_t start : {0, 1, 2}) {
      const Tensor part = x.rows(start, count);
      const Tensor half = converted(part, DType::f16);
      EXPECT_TRUE(same_bits(half, part.to(DType::f16))) << count << ' ' << start;
      Tensor longer = poisoned({count + 3}, DType::f32, device());
      Tensor target = longer.rows(start, count);
      cast_on(device()).convert(half, target);
      EXPECT_TRUE(same_bits(target, half.to(DType::f32))) << count << ' ' << start;
      EXPECT_EQ(std::isnan(longer.to_vector<float>()[0]), start > 0);
      EXPECT_TRUE(std::isnan(longer.to_vector<float>().back()));
    }
  }
  EXPECT_EQ(converted(Tensor::empty({0, 2}, DType::f32, device()), DType::f16).numel(), 0);
}

TEST_P(CastOn, TheGradientIsRoundedOnItsWayBack) {
  const Variable x(Tensor::from<float>({1.0f + 0x1p-12f, 3.0f, -70000.0f}, {3}).to(device()), true);
  const Variable y = cast(cast(x, DType::f16), DType::f32);
  EXPECT_EQ(y.value().to_vector<float>(), (std::vector<float>{1.0f, 3.0f, -INFINITY}));
  // Half the smallest half is a tie and goes to zero; a little more survives.
  y.backward(Tensor::from<float>({0x1p-25f, 0x1.1p-25f, 2049.0f}, {3}).to(device()));
  EXPECT_EQ(x.grad().to_vector<float>(), (std::vector<float>{0.0f, 0x1p-24f, 2048.0f}));
  EXPECT_EQ(cast(x, DType::f32).state(), x.state());
}

CINNABAR_ON_EACH_DEVICE(CastOn);

using Inputs = std::vector<Variable>;

/// Through f32 and back: a step of 1e-2 stands far above f32's rounding.
Variable through_f32(const Inputs& v) {
  return square(cast(cast(v[0], DType::f32), DType::f64));
}

TEST(Cast, Gradient) {
  const auto result = gradcheck(through_f32, {random_tensor({37}, 2, -1, 1, DType::f64)}, {1e-2});
  EXPECT_TRUE(result) << result.message;
}

TEST(Cast, GradcheckRefusesAGradientOfTheWrongSize) {
  const auto wrong = [](const Inputs& v) {
    return record_one("wrong", cast(v[0], DType::f32).value(), {v[0]}, [](const Tensor& grad) {
      return std::vector<Tensor>{Tensor::full(grad.shape(), 1.0, DType::f64)};
    });
  };
  const auto doubled = [&](const Inputs& v) { return cast(wrong({v[0] * 2.0}), DType::f64); };
  EXPECT_FALSE(gradcheck(doubled, {random_tensor({5}, 3, -1, 1, DType::f64)}, {1e-2}));
}

TEST(Cast, RefusesMisfits) {
  const Tensor x = Tensor::zeros({3});
  Tensor counts = Tensor::zeros({3}, DType::i32);
  Tensor four = Tensor::zeros({4}, DType::f16);
  EXPECT_THROW(cpu::cast.convert(x, counts), Error);
  EXPECT_THROW(cpu::cast.convert(counts, four), Error);
  EXPECT_THROW(cpu::cast.convert(x, four), Error);
  EXPECT_THROW(cast(Variable(x), DType::i64), Error);
}

}  // namespace
}  // namespace cinnabar::testing
