#include "autograd/cpab.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/cpab_fields.hpp"
#include "tests/devices.hpp"
#include "tests/threads.hpp"

namespace cinnabar::testing {
namespace {

TEST(Cpab, RefusesMisfits) {
  const CpabSpace space({2, 2});
  const Variable theta(Tensor::zeros({2, space.dim()}));
  const auto flow = [&](const Shape& points, const CpabOptions& options = {}, DType dtype = DType::f32) {
    return cpab_flow(Variable(Tensor::zeros(points, dtype)), theta, space, options);
  };
  EXPECT_NO_THROW(flow({3, 2}));
  EXPECT_NO_THROW(flow({2, 3, 2}));
  EXPECT_THROW(flow({3, 3}), Error);
  EXPECT_THROW(flow({3, 3, 2}), Error);
  EXPECT_THROW(flow({2}), Error);
  EXPECT_THROW(flow({3, 2}, {}, DType::f64), Error);
  EXPECT_THROW(flow({3, 2}, {CpabIntegrator::steps, 0}), Error);
  EXPECT_THROW(flow({3, 2}, {CpabIntegrator::steps, 1025}), Error);
  EXPECT_THROW(space.maps(Variable(Tensor::zeros({2, space.dim() + 1}))), Error);
}

class CpabOn : public OnDevice {
 protected:
  struct Results {
    Tensor output, grad_maps, grad_points, log_determinant, velocity;
    std::vector<Tensor> all() const { return {output, grad_maps, grad_points, log_determinant, velocity}; }
  };
  static Results run(Device device, DType dtype, const CpabGrid& grid, const CpabOptions& options,
                     const Tensor& maps, const Tensor& points, const Tensor& grad_output) {
    const auto there = [&](const Tensor& x) { return x.to(dtype).to(device); };
    const Shape& shape = grad_output.shape();
    Results results{poisoned(shape, dtype, device), poisoned(maps.shape(), dtype, device),
                    poisoned(shape, dtype, device), poisoned(shape.without(2), dtype, device),
                    poisoned(shape, dtype, device)};
    const Cpab& kernels = cpab_on(device);
    kernels.forward(there(maps), there(points), grid, options, results.output);
    kernels.backward(there(grad_output), there(maps), there(points), grid, options, results.grad_maps,
                     results.grad_points);
    kernels.log_determinant(there(maps), there(points), grid, options, results.log_determinant);
    kernels.velocity(there(maps), there(points), grid, results.velocity);
    return results;
  }
};

TEST_P(CpabOn, AgreesWithFloat64AndAssigns) {
  // 20 x 11 and 5 x 4 x 4 boxes are more cells than shared memory holds.
  for (const Boxes& boxes : {Boxes{7}, {3, 2}, {20, 11}, {2, 3, 2}, {5, 4, 4}}) {
    const CpabTessellation tessellation(boxes);
    const std::int64_t d = tessellation.dims();
    const double speed = 0.8 / boxes[0];
    const Tensor nodes = random_tensor({2, tessellation.vertices(), d}, 21, -speed, speed, DType::f64);
    const Tensor maps = tessellation.maps_from_matrices(tessellation.matrices_from_nodes(nodes));
    const std::int64_t count = boxes[0] == 2 ? 531 : 67;
    const Tensor points = random_tensor({2, count, d}, 22, 0.2, 0.8);
    const Tensor grad_output = random_tensor({2, count, d}, 23);
    // A single step of the scheme, since rounding could change a later lookup.
    for (const CpabOptions& options : {CpabOptions{}, CpabOptions{CpabIntegrator::steps, 1}}) {
      const auto on = [&](Device where, DType dtype) {
        return run(where, dtype, tessellation.grid(), options, maps, points, grad_output).all();
      };
      const auto expected = on(Device::cpu(), DType::f64);
      const auto actual = on(device(), DType::f32);
      const auto again = on(device(), DType::f32);
      for (std::size_t k = 0; k < actual.size(); ++k) {
        EXPECT_LE(relative_error(actual[k], expected[k]), k == 0 ? 1e-6 : 3e-5)
            << k << ' ' << ::testing::PrintToString(boxes);
        EXPECT_TRUE(same_values(actual[k], again[k])) << k;
      }
    }
  }
}

TEST_P(CpabOn, SumsGradientsOfAnySize) {
  // A GPU guesses the largest term from the first 128 points: here nothing, far too little, and all there is.
  const CpabTessellation tessellation({3, 3});
  const Tensor nodes = random_tensor({1, tessellation.vertices(), 2}, 41, -0.2, 0.2, DType::f64);
  const Tensor maps = tessellation.maps_from_matrices(tessellation.matrices_from_nodes(nodes));
  constexpr std::int64_t kCount = 600;
  constexpr std::int64_t kFirst = 128;
  const Tensor points = random_tensor({kCount, 2}, 42, 0.1, 0.9);
  for (const auto& [first, rest] : {std::pair{0.0f, 1.0f}, {1e-9f, 1e3f}, {1e4f, 1e-4f}, {1e-30f, 0.0f}}) {
    Tensor grad_output = random_tensor({1, kCount, 2}, 43, 0.5, 1.0);
    for (std::int64_t i = 0; i < 2 * kCount; ++i)
      grad_output.data<float>()[i] *= i < 2 * kFirst ? first : rest;
    const auto on = [&](Device where, DType dtype) {
      return run(where, dtype, tessellation.grid(), {}, maps, points, grad_output).grad_maps;
    };
    EXPECT_LE(relative_error(on(device(), DType::f32), on(Device::cpu(), DType::f64)), 3e-5)
        << first << " and " << rest;
  }
}

TEST_P(CpabOn, NanStaysWhereItIsAndFarPointsAreMoved) {
  const CpabTessellation tessellation({2, 2});
  const Tensor nodes = random_tensor({1, tessellation.vertices(), 2}, 31, -0.2, 0.2, DType::f64);
  const Tensor maps = tessellation.maps_from_matrices(tessellation.matrices_from_nodes(nodes));
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor points = Tensor::from<float>({nan, 0.5f, 0.5f, 0.25f, 40.0f, -30.0f}, {3, 2});
  const Results found =
      run(device(), DType::f32, tessellation.grid(), {}, maps, points, Tensor::full({1, 3, 2}, 1.0));
  EXPECT_TRUE(std::isnan(found.output.to_vector<float>()[0]));
  EXPECT_TRUE(std::isnan(found.grad_points.to_vector<float>()[1]));
  EXPECT_TRUE(std::isnan(found.log_determinant.to_vector<float>()[0]));
  EXPECT_TRUE(std::isfinite(found.output.to_vector<float>()[2]));
  EXPECT_TRUE(std::isfinite(found.output.to_vector<float>()[4]));
  EXPECT_TRUE(std::isfinite(largest(found.grad_maps)));
}

TEST_P(CpabOn, NoPointsGiveZeroGradient) {
  const CpabTessellation tessellation({2, 2});
  const Tensor maps = Tensor::zeros({1, 16, 2, 3});
  const Results found = run(device(), DType::f32, tessellation.grid(), {}, maps, Tensor::zeros({0, 2}),
                            Tensor::zeros({1, 0, 2}));
  EXPECT_TRUE(same_values(found.grad_maps, maps));
}

TEST(Cpab, BitsDoNotDependOnTheNumberOfThreads) {
  const CpabSpace space({4, 3}, {}, DType::f32);
  const Tensor theta = lively_theta(space, 2, 41);
  const Tensor points = points_inside(5000, 2, 42, DType::f32);
  const Tensor grad = random_tensor({2, 5000, 2}, 43);
  const auto compute = [&] {
    const Variable x(points, true), t(theta, true);
    const Variable moved = cpab_flow(x, t, space);
    moved.backward(grad);
    return std::vector<Tensor>{moved.value(), x.grad(), t.grad()};
  };
  const auto one = on_threads(1, compute);
  const auto three = on_threads(3, compute);
  for (std::size_t k = 0; k < one.size(); ++k) EXPECT_TRUE(same_values(one[k], three[k])) << k;
}

TEST(CpabOnCuda, AsksForFloat32) {
  if (cuda_status().device_count == 0) GTEST_SKIP() << cuda_status().reason;
  const CpabSpace space({2, 2}, {}, DType::f64, Device::cuda());
  const Variable points(Tensor::zeros({1, 2}, DType::f64, Device::cuda()));
  const Tensor maps = Tensor::zeros({1, 16, 2, 3}, DType::f64, Device::cuda());
  EXPECT_THROW(cpab_flow_of_maps(points, Variable(maps), space.grid()), Error);
}

CINNABAR_ON_EACH_DEVICE(CpabOn);

}  // namespace
}  // namespace cinnabar::testing
