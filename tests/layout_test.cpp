#include "autograd/layout.hpp"

#include <gtest/gtest.h>

#include "autograd/elementwise.hpp"
#include "autograd/gradcheck.hpp"
#include "autograd/reduce.hpp"
#include "kernels/layout.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"

namespace cinnabar {
namespace {

using testing::poisoned;
using testing::random_tensor;
using testing::same_values;

Variable counting(const Shape& shape) {
  std::vector<float> values(static_cast<std::size_t>(shape.numel()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  return Variable(Tensor::from(values, shape));
}

std::vector<int> values_of(const Variable& x) {
  return x.value().to_vector<int>();
}

TEST(Layout, HandSizedRearrangements) {
  const Variable x = counting({2, 3});
  EXPECT_EQ(values_of(transpose(x, 0, 1)), (std::vector<int>{0, 3, 1, 4, 2, 5}));
  EXPECT_EQ(permute(counting({2, 3, 4}), {2, 0, 1}).shape(), (Shape{4, 2, 3}));
  EXPECT_EQ(values_of(permute(counting({2, 1, 2}), {-1, 0, 1})), (std::vector<int>{0, 2, 1, 3}));
  EXPECT_EQ(values_of(slice(x, 1, 1, 3)), (std::vector<int>{1, 2, 4, 5}));
  EXPECT_EQ(values_of(slice(x, {{}, {0, 3, 2}})), (std::vector<int>{0, 2, 3, 5}));
  EXPECT_EQ(values_of(slice(x, -1, -2, 100)), (std::vector<int>{1, 2, 4, 5}));
  EXPECT_EQ(slice(x, 1, 2, 1).shape(), (Shape{2, 0}));
  EXPECT_EQ(values_of(concat({x, x}, 1)), (std::vector<int>{0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5}));
  EXPECT_EQ(values_of(concat({x, counting({1, 3})}, 0)), (std::vector<int>{0, 1, 2, 3, 4, 5, 0, 1, 2}));
  EXPECT_EQ(values_of(pad(counting({1, 2}), {{1, 0}, {0, 1}}, 9)), (std::vector<int>{9, 9, 9, 0, 1, 9}));
  EXPECT_EQ(values_of(pad(counting({2}), {{1, 1}})), (std::vector<int>{0, 0, 1, 0}));
  EXPECT_EQ(values_of(expand(counting({2, 1}), {2, 2, 3})),
            (std::vector<int>{0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1}));
  EXPECT_EQ(reshape(x, {3, -1}).shape(), (Shape{3, 2}));
  EXPECT_EQ(unsqueeze(x, -1).shape(), (Shape{2, 3, 1}));
  EXPECT_EQ(squeeze(unsqueeze(x, 1), 1).shape(), (Shape{2, 3}));
}

TEST(Layout, Gradients) {
  const Tensor x = random_tensor({3, 2, 4}, 1, -1, 1, DType::f64);
  const Tensor y = random_tensor({3, 5, 4}, 2, -1, 1, DType::f64);
  const std::vector<std::pair<const char*, std::function<Variable(const std::vector<Variable>&)>>> functions =
      {
          {"permute",
           [](const std::vector<Variable>& v) {
             return permute(v[0], {2, 0, 1});
           }},
          {"transpose", [](const std::vector<Variable>& v) { return transpose(v[0], 0, -1); }},
          {"slice",
           [](const std::vector<Variable>& v) {
             return slice(v[0], {{1, 3, 1}, {}, {0, 4, 3}});
           }},
          {"concat",
           [](const std::vector<Variable>& v) {
             return concat({v[0], v[1], v[0]}, 1);
           }},
          {"pad",
           [](const std::vector<Variable>& v) {
             return pad(v[0], {{1, 0}, {0, 2}, {1, 1}}, 0.5);
           }},
          {"reshape",
           [](const std::vector<Variable>& v) {
             return reshape(v[0], {4, -1});
           }},
          {"expand",
           [](const std::vector<Variable>& v) {
             return expand(slice(v[0], 1, 0, 1), {2, 3, 5, 4});
           }},
          {"squeeze", [](const std::vector<Variable>& v) { return squeeze(unsqueeze(v[0], 0), 0); }},
      };
  for (const auto& [name, function] : functions) {
    // The weights of gradcheck differ from element to element, so a misplaced one shows.
    const auto result = gradcheck(function, {x, y});
    EXPECT_TRUE(result) << name << '\n' << result.message;
  }
}

TEST(Layout, GradcheckRejectsAPermutationUsedInPlaceOfItsInverse) {
  const auto wrong = [](const std::vector<Variable>& v) {
    return record_one("wrong_permute", permute(v[0].detach(), {1, 2, 0}).value(), {v[0]},
                      [](const Tensor& grad) {
                        return std::vector<Tensor>{permute(Variable(grad), {1, 2, 0}).value()};
                      });
  };
  EXPECT_FALSE(gradcheck(wrong, {random_tensor({3, 3, 3}, 1, -1, 1, DType::f64)}));
}

TEST(Layout, MisfitsAreRefused) {
  const Variable x = counting({2, 3});
  EXPECT_THROW(permute(x, {0}), Error);
  EXPECT_THROW(permute(x, {0, 0}), Error);
  EXPECT_THROW(slice(x, 0, 0, 2, 0), Error);
  EXPECT_THROW(slice(x, {{}, {}, {}}), Error);
  EXPECT_THROW(concat({}, 0), Error);
  EXPECT_THROW(concat({x, counting({3, 2})}, 0), Error);
  EXPECT_THROW(concat({x, Variable(Tensor::zeros({2, 3}, DType::f64))}, 0), Error);
  EXPECT_THROW(pad(x, {{1, 1}}), Error);
  EXPECT_THROW(pad(x, {{-1, 0}, {0, 0}}), Error);
  EXPECT_THROW(expand(x, {3, 3}), Error);
  EXPECT_THROW(expand(x, {3}), Error);
  EXPECT_THROW(reshape(x, {4, -1}), Error);
  EXPECT_THROW(squeeze(x, 0), Error);
  EXPECT_THROW(unsqueeze(x, 4), Error);
}

class LayoutKernels : public testing::OnDevice {};
CINNABAR_ON_EACH_DEVICE(LayoutKernels);

/// target[offset + i stride] = source[offset + i stride] by plain loops.
Tensor expected_copy(const Tensor& source, const View& from, const Shape& extents, const View& to,
                     const Tensor& target) {
  const std::vector<double> in = source.to_vector<double>();
  std::vector<double> out = target.to_vector<double>();
  for (std::int64_t i = 0; i < extents.numel(); ++i) {
    std::int64_t rest = i;
    std::int64_t a = from.offset;
    std::int64_t b = to.offset;
    for (int axis = extents.rank() - 1; axis >= 0; --axis) {
      const std::int64_t step = rest % extents[axis];
      a += step * from.stride[static_cast<std::size_t>(axis)];
      b += step * to.stride[static_cast<std::size_t>(axis)];
      rest /= extents[axis];
    }
    out[static_cast<std::size_t>(b)] = in[static_cast<std::size_t>(a)];
  }
  return Tensor::from(out, target.shape()).to(target.dtype());
}

TEST_P(LayoutKernels, CopiesEveryDTypeThroughRunsStepsAndTiles) {
  struct Case {
    Shape source, extents, target;
    View from, to;
  };
  const std::vector<Case> cases = {
      {{7, 11}, {7, 11}, {7, 11}, {0, {11, 1}}, {0, {11, 1}}},                        // contiguous
      {{45, 67}, {67, 45}, {67, 45}, {0, {1, 67}}, {0, {45, 1}}},                     // transposed tiles
      {{3, 33, 40}, {40, 3, 33}, {40, 3, 33}, {0, {1, 1320, 40}}, {0, {99, 33, 1}}},  // with a batch
      {{10, 9}, {4, 3}, {4, 3}, {11, {18, 2}}, {0, {3, 1}}},                          // steps
      {{4, 3}, {4, 3}, {10, 9}, {0, {3, 1}}, {11, {18, 2}}},                          // into steps
      {{5}, {3, 5}, {3, 5}, {0, {0, 1}}, {0, {5, 1}}},                                // repeated
      {{6}, {6}, {6}, {5, {-1}}, {0, {1}}},                                           // backwards
      {{1}, {}, {1}, {0, {}}, {0, {}}},                                               // one element
  };
  for (const DType dtype : {DType::f32, DType::f64, DType::f16, DType::u8, DType::i64}) {
    for (const Case& c : cases) {
      const Tensor source = random_tensor(c.source, 1, 0, 200).to(dtype);
      const Tensor before = Tensor::full(c.target, 77.0, dtype);
      Tensor target = before.clone().to(device());
      if (device().is_cpu()) target = before.clone();
      layout_on(device()).copy(source.to(device()), c.from, c.extents, c.to, target);
      EXPECT_TRUE(same_values(target, expected_copy(source, c.from, c.extents, c.to, before)))
          << dtype << ' ' << c.source << " to " << c.target;
    }
  }
}

TEST_P(LayoutKernels, ViewsThatLeaveTheirTensorAreRefused) {
  const Tensor source = Tensor::zeros({6}, DType::f32, device());
  Tensor target = Tensor::zeros({6}, DType::f32, device());
  const auto copy = layout_on(device()).copy;
  EXPECT_THROW(copy(source, {1, {1}}, {6}, {0, {1}}, target), Error);
  EXPECT_THROW(copy(source, {0, {-1}}, {6}, {0, {1}}, target), Error);
  EXPECT_THROW(copy(source, {0, {1}}, {6}, {0, {2}}, target), Error);
  Tensor other = Tensor::zeros({6}, DType::i32, device());
  EXPECT_THROW(copy(source, {0, {1}}, {6}, {0, {1}}, other), Error);
  copy(source, {100, {1}}, {0}, {0, {1}}, target);  // nothing to do
}

}  // namespace
}  // namespace cinnabar
