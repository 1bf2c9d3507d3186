#include "engine/dtype.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "engine/tensor.hpp"

namespace cinnabar {
namespace {

/// A small floating-point format, described by IEEE 754's parameters.
struct Format {
  int mantissa_bits;
  int min_exponent;  ///< of normal numbers: values from 2^min_exponent
  int max_exponent;  ///< values below 2^(max_exponent + 1)
};
constexpr Format kHalf{10, -14, 15};
constexpr Format kBFloat16{7, -126, 127};

Half half_of_bits(std::uint32_t bits) {
  Half value;
  value.bits = static_cast<std::uint16_t>(bits);
  return value;
}
BFloat16 bfloat_of_bits(std::uint32_t bits) {
  BFloat16 value;
  value.bits = static_cast<std::uint16_t>(bits);
  return value;
}

/// The value of 16 bits by the definition of the format.
double decode(std::uint32_t bits, const Format& format) {
  const double sign = (bits & 0x8000u) != 0 ? -1.0 : 1.0;
  const std::uint32_t mantissa_count = 1u << format.mantissa_bits;
  const std::uint32_t mantissa = bits & (mantissa_count - 1);
  const auto exponent = static_cast<int>((bits & 0x7fffu) >> format.mantissa_bits);
  if (exponent == (0x7fff >> format.mantissa_bits)) {
    return mantissa == 0 ? sign * INFINITY : std::numeric_limits<double>::quiet_NaN();
  }
  const int unit = format.min_exponent - format.mantissa_bits;
  if (exponent == 0) return sign * std::ldexp(mantissa, unit);
  return sign * std::ldexp(mantissa_count + mantissa, unit + exponent - 1);
}

/// Rounds to the nearest value of the format, ties to even, in double arithmetic: by the distance between
/// neighbours at that magnitude.
double round_to(double value, const Format& format) {
  if (!std::isfinite(value) || value == 0.0) return value;
  const int exponent = std::max(std::ilogb(value), format.min_exponent);
  const int unit = exponent - format.mantissa_bits;
  const double rounded = std::ldexp(std::nearbyint(std::ldexp(value, -unit)), unit);
  return std::abs(rounded) >= std::ldexp(1.0, format.max_exponent + 1) ? std::copysign(INFINITY, value)
                                                                       : rounded;
}

bool same(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

TEST(DTypeHalf, EveryBitPatternHasItsValueAndComesBack) {
  for (std::uint32_t bits = 0; bits <= 0xffffu; ++bits) {
    const auto value = static_cast<float>(half_of_bits(bits));
    ASSERT_TRUE(same(value, decode(bits, kHalf))) << std::hex << bits;
    if (std::isnan(value)) continue;
    ASSERT_EQ(Half(value).bits, bits) << std::hex << bits;
  }
}

TEST(DTypeBFloat16, EveryBitPatternHasItsValueAndComesBack) {
  for (std::uint32_t bits = 0; bits <= 0xffffu; ++bits) {
    const auto value = static_cast<float>(bfloat_of_bits(bits));
    ASSERT_TRUE(same(value, decode(bits, kBFloat16))) << std::hex << bits;
    if (std::isnan(value)) continue;
    ASSERT_EQ(BFloat16(value).bits, bits) << std::hex << bits;
  }
}

/// Floats on every side of a rounding: for all signs and exponents and the upper mantissa bits in steps, the
/// low bits that make ties, near-ties and exact values.
template <class Small>
void expect_nearest_rounding(const Format& format, int low_bits) {
  const std::uint32_t tie = 1u << (low_bits - 1);
  for (std::uint32_t high = 0; high < (1u << (32 - low_bits)); ++high) {
    for (const std::uint32_t low : {0u, 1u, tie - 1, tie, tie + 1, 2 * tie - 1}) {
      const auto value = std::bit_cast<float>(high << low_bits | low);
      const double expected = round_to(value, format);
      ASSERT_TRUE(same(static_cast<float>(Small(value)), expected))
          << std::hexfloat << value << " gives " << static_cast<float>(Small(value)) << ", not " << expected;
    }
  }
}

TEST(DTypeHalf, RoundsToNearestEven) {
  expect_nearest_rounding<Half>(kHalf, 13);
  EXPECT_EQ(Half(65504.0f).bits, 0x7bff);
  EXPECT_EQ(Half(65519.996f).bits, 0x7bff);
  EXPECT_EQ(Half(65520.0f).bits, 0x7c00);
}

TEST(DTypeBFloat16, RoundsToNearestEven) {
  expect_nearest_rounding<BFloat16>(kBFloat16, 16);
  EXPECT_TRUE(std::isinf(static_cast<float>(BFloat16(std::numeric_limits<float>::max()))));
}

TEST(DTypeHalf, SubnormalsRoundToNearestEven) {
  // Every tie between neighbouring subnormal halves, and the floats next to it.
  for (int k = 0; k <= 1024; ++k) {
    const float tie = std::ldexp(static_cast<float>(2 * k + 1), -25);
    for (const float value : {std::nextafter(tie, 0.0f), tie, std::nextafter(tie, 1.0f)}) {
      ASSERT_TRUE(same(static_cast<float>(Half(value)), round_to(value, kHalf))) << std::hexfloat << value;
      ASSERT_TRUE(same(static_cast<float>(Half(-value)), round_to(-value, kHalf))) << std::hexfloat << value;
    }
  }
}

TEST(DType, NanStaysNanWithItsSign) {
  for (const std::uint32_t bits : {0x7f800001u, 0x7fc00000u, 0x7fffffffu, 0xff800001u, 0xffffffffu}) {
    const auto nan = std::bit_cast<float>(bits);
    const auto half = static_cast<float>(Half(nan));
    const auto brain = static_cast<float>(BFloat16(nan));
    EXPECT_TRUE(std::isnan(half) && std::isnan(brain)) << std::hex << bits;
    EXPECT_EQ(std::signbit(half), std::signbit(nan));
    EXPECT_EQ(std::signbit(brain), std::signbit(nan));
  }
}

TEST(DType, SizesNamesAndKinds) {
  struct Row {
    DType dtype;
    std::size_t size;
    const char* name;
    bool floating;
  };
  for (const Row& row :
       {Row{DType::f32, 4, "f32", true}, Row{DType::f64, 8, "f64", true}, Row{DType::f16, 2, "f16", true},
        Row{DType::bf16, 2, "bf16", true}, Row{DType::i32, 4, "i32", false}, Row{DType::i64, 8, "i64", false},
        Row{DType::u8, 1, "u8", false}}) {
    EXPECT_EQ(size_of(row.dtype), row.size);
    EXPECT_EQ(name_of(row.dtype), row.name);
    EXPECT_EQ(is_floating(row.dtype), row.floating);
  }
}

TEST(DType, ConversionsBetweenAllPairsKeepSmallIntegers) {
  const Tensor numbers = Tensor::from<std::int32_t>({0, 1, 2, 100, 127}, {5});
  constexpr DType kAll[] = {DType::f32, DType::f64, DType::f16, DType::bf16,
                            DType::i32, DType::i64, DType::u8};
  for (const DType from : kAll) {
    for (const DType to : kAll) {
      EXPECT_EQ(numbers.to(from).to(to).to_vector<int>(), (std::vector<int>{0, 1, 2, 100, 127}))
          << from << " to " << to;
    }
  }
}

TEST(DType, ConversionsToIntegersRoundSaturateAndDropNan) {
  const Tensor x = Tensor::from<double>({0.5, 1.5, -2.5, 1e30, -1e30, std::nan("")}, {6});
  constexpr auto kMax32 = std::numeric_limits<std::int32_t>::max();
  constexpr auto kMin32 = std::numeric_limits<std::int32_t>::min();
  EXPECT_EQ(x.to(DType::i32).to_vector<std::int32_t>(),
            (std::vector<std::int32_t>{0, 2, -2, kMax32, kMin32, 0}));
  EXPECT_EQ(x.to(DType::u8).to_vector<int>(), (std::vector<int>{0, 2, 0, 255, 0, 0}));
  const Tensor wide = Tensor::from<std::int64_t>({1ll << 40, -(1ll << 40), 300, -1}, {4});
  EXPECT_EQ(wide.to(DType::i32).to_vector<std::int32_t>(),
            (std::vector<std::int32_t>{kMax32, kMin32, 300, -1}));
  EXPECT_EQ(wide.to(DType::u8).to_vector<int>(), (std::vector<int>{255, 0, 255, 0}));
}

}  // namespace
}  // namespace cinnabar
