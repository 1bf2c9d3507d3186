#include "autograd/cpab_sample.hpp"

#include <gtest/gtest.h>

#include "autograd/elementwise.hpp"
#include "autograd/gradcheck.hpp"
#include "autograd/grid_sample.hpp"
#include "autograd/layout.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

const GridSampleOptions kFaces{Interpolation::linear, Boundary::border, false};
const GridSampleOptions kCentres{Interpolation::linear, Boundary::border, true};

TEST(CpabSample, ZeroThetaIsTheImageItself) {
  const auto check = [](const std::vector<std::int32_t>& boxes, const Shape& shape) {
    const CpabSpace space(boxes, {}, DType::f64);
    const Tensor image = random_tensor(shape, 1, -1, 1, DType::f64);
    const Variable theta(Tensor::zeros({shape[0], space.dim()}, DType::f64));
    for (const GridSampleOptions& options : {kFaces, kCentres}) {
      EXPECT_LE(relative_error(cpab_sample(Variable(image), theta, space, options).value(), image), 1e-12);
    }
  };
  check({4}, {2, 3, 17});
  check({2, 3}, {2, 1, 5, 7});
  check({2, 2, 1}, {1, 2, 3, 4, 5});
  check({2, 2, 1}, {1, 1, 1, 1, 6});
}

TEST(CpabSample, GradientsMatchDifferences) {
  const auto check = [](const std::vector<std::int32_t>& boxes, const Shape& shape) {
    const CpabSpace space(boxes, {}, DType::f64);
    const auto fn = [&](const std::vector<Variable>& in) { return cpab_sample(in[0], in[1], space, kFaces); };
    const GradcheckResult result =
        gradcheck(fn,
                  {random_tensor(shape, 2, -1, 1, DType::f64),
                   random_tensor({shape[0], space.dim()}, 3, -0.5, 0.5, DType::f64)},
                  {.max_entries = 15});
    EXPECT_TRUE(result) << result.message;
  };
  check({3}, {2, 1, 9});
  check({2, 2}, {1, 2, 5, 6});
  check({1, 2, 2}, {1, 1, 3, 4, 5});
}

class CpabSampleOn : public OnDevice {};

TEST_P(CpabSampleOn, SlabsAgreeWithTheWholeGrid) {
  // More rows than one slab holds.
  const Shape shape{1, 1, device().is_cpu() ? 530 : 5, device().is_cpu() ? 509 : 6};
  const CpabSpace space({3, 3}, {}, DType::f32, device());
  const Variable image(random_tensor(shape, 4).to(device()), true);
  const Variable theta(random_tensor({1, space.dim()}, 5, -1, 1).to(device()), true);
  const Tensor seed = random_tensor(shape, 6).to(device());
  const auto grads = [&](const Variable& result) {
    result.backward(seed);
    std::vector<Tensor> found{result.value(), image.grad().clone(), theta.grad().clone()};
    Variable(image).clear_grad();
    Variable(theta).clear_grad();
    return found;
  };
  const auto slabs = grads(cpab_sample(image, theta, space, kFaces));
  const Variable points(cpab_grid_points({shape[2], shape[3]}, false, DType::f32, device()));
  const Variable grid =
      reshape(affine(cpab_flow(points, theta, space), 2.0, -1.0), {1, shape[2], shape[3], 2});
  const auto whole = grads(grid_sample(image, grid, kFaces));
  for (std::size_t k = 0; k < slabs.size(); ++k)
    EXPECT_LE(relative_error(slabs[k], whole[k]), k == 0 ? 1e-3 : 1e-2) << k;
}

TEST(CpabSample, RefusesMisfits) {
  const CpabSpace space({2, 2});
  const Variable theta(Tensor::zeros({1, space.dim()}));
  EXPECT_THROW(cpab_sample(Variable(Tensor::zeros({1, 1, 4})), theta, space), Error);
  EXPECT_THROW(cpab_sample(Variable(Tensor::zeros({2, 1, 4, 4})), theta, space), Error);
}

CINNABAR_ON_EACH_DEVICE(CpabSampleOn);

}  // namespace
}  // namespace cinnabar::testing
