#include "engine/tensor.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/devices.hpp"

namespace cinnabar {
namespace {

TEST(Tensor, SharesStorageOnCopyAndRowsAndSeparatesOnClone) {
  Tensor a = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {3, 2});
  Tensor row = a.rows(1, 1);
  const Tensor copy = a.clone();
  row.fill(9);
  EXPECT_EQ(a.to_vector<float>(), (std::vector<float>{1, 2, 9, 9, 5, 6}));
  EXPECT_EQ(copy.to_vector<float>(), (std::vector<float>{1, 2, 3, 4, 5, 6}));
}

class TensorOn : public testing::OnDevice {};

TEST_P(TensorOn, FillReachesEveryElementAndNoOther) {
  for (const std::int64_t count : {0, 1, 4095, 4096, 4097, 20000}) {
    for (const DType dtype : {DType::u8, DType::bf16, DType::f32, DType::i64}) {
      Tensor padded = Tensor::zeros({count + 2}, dtype, device());
      Tensor middle = padded.rows(1, count);
      middle.fill(3.0);
      std::vector<double> expected(static_cast<std::size_t>(count + 2), 3.0);
      expected.front() = expected.back() = 0.0;
      EXPECT_EQ(padded.to_vector<double>(), expected) << count << ' ' << dtype;
    }
  }
}

CINNABAR_ON_EACH_DEVICE(TensorOn);

TEST(Tensor, ReshapeInfersOneExtentAndRefusesMisfits) {
  const Tensor a = Tensor::zeros({2, 3, 4});
  EXPECT_EQ(a.reshape({6, -1}).shape(), (Shape{6, 4}));
  EXPECT_THROW(a.reshape({5, -1}), Error);
  EXPECT_THROW(a.reshape({-1, -1}), Error);
}

TEST(Tensor, DTypeConversionRoundsAndSaturates) {
  const Tensor a = Tensor::from<float>({-1.0f, 2.5f, 3.5f, 300.0f, 65519.0f, 65520.0f}, {6});
  EXPECT_EQ(a.to(DType::u8).to_vector<int>(), (std::vector<int>{0, 2, 4, 255, 255, 255}));
  const auto half = a.to(DType::f16).to_vector<float>();
  EXPECT_EQ(half[4], 65504.0f);
  EXPECT_TRUE(std::isinf(half[5]));
}

TEST(Tensor, DataOfTheWrongDTypeIsRefused) {
  const Tensor a = Tensor::zeros({2});
  EXPECT_THROW(a.data<double>(), Error);
  EXPECT_THROW(Tensor().raw(), Error);
}

TEST(Shape, RefusesOverflowAndBadAxes) {
  EXPECT_THROW((Shape{std::int64_t{1} << 40, std::int64_t{1} << 40}), Error);
  EXPECT_THROW((Shape{2, 3}[2]), Error);
  EXPECT_EQ((Shape{2, 3}[-1]), 3);
}

}  // namespace
}  // namespace cinnabar
