#include "autograd/matrix_inverse.hpp"

#include <gtest/gtest.h>

#include "autograd/gradcheck.hpp"
#include "autograd/matmul.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

class MatrixInverseOn : public OnDevice {};
CINNABAR_ON_EACH_DEVICE(MatrixInverseOn);

TEST_P(MatrixInverseOn, TimesTheMatrixIsTheIdentity) {
  for (const std::int64_t n : {1, 2, 3, 4, 7}) {
    const Variable matrices(random_tensor({5, n, n}, 1).to(device()));
    const Tensor product = matmul(matrix_inverse(matrices), matrices).value();
    std::vector<float> expected;
    for (std::int64_t i = 0; i < 5 * n * n; ++i) expected.push_back(i / n % n == i % n ? 1.0f : 0.0f);
    EXPECT_LE(relative_error(product, Tensor::from(expected, product.shape())), 2e-4) << n;
  }
}

TEST(MatrixInverse, OfOneThatNeedsAnExchangeOfRows) {
  const Variable matrix(Tensor::from<double>({0, 2, 4, 0}, {2, 2}));
  EXPECT_EQ(matrix_inverse(matrix).value().to_vector<double>(), (std::vector<double>{0, 0.25, 0.5, 0}));
}

TEST(MatrixInverse, GradientMatchesDifferences) {
  EXPECT_TRUE(gradcheck([](const std::vector<Variable>& in) { return matrix_inverse(in[0]); },
                        {random_tensor({2, 3, 3}, 2, -1, 1, DType::f64)}));
}

TEST(MatrixInverse, RefusesWhatHasNone) {
  EXPECT_THROW(matrix_inverse(Variable(Tensor::from<float>({1, 2, 2, 4}, {2, 2}))), Error);
  EXPECT_THROW(matrix_inverse(Variable(Tensor::zeros({2, 3}))), Error);
  EXPECT_THROW(matrix_inverse(Variable(Tensor::zeros({3}))), Error);
}

}  // namespace
}  // namespace cinnabar::testing
