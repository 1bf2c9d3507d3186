#include "autograd/grid_sample.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "autograd/gradcheck.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"
#include "tests/threads.hpp"

namespace cinnabar::testing {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

std::vector<GridSampleOptions> all_options() {
  std::vector<GridSampleOptions> all;
  for (const auto interpolation : {Interpolation::linear, Interpolation::nearest}) {
    for (const auto boundary : {Boundary::zeros, Boundary::border, Boundary::reflection}) {
      for (const bool align : {false, true}) all.push_back({interpolation, boundary, align});
    }
  }
  return all;
}

std::string describe(const GridSampleOptions& options) {
  return (options.interpolation == Interpolation::linear ? "linear" : "nearest") +
         std::string(", boundary ") + std::to_string(static_cast<int>(options.boundary)) +
         (options.align_corners ? ", align_corners" : "");
}

/// Runs the three kernels of `device` on f32 copies and returns output, grad_input, grad_grid.
std::vector<Tensor> run_all(Device device, DType dtype, const Tensor& input, const Tensor& grid,
                            const Tensor& grad_output, const GridSampleOptions& options) {
  const auto there = [&](const Tensor& x) { return x.to(dtype).to(device); };
  Tensor output = poisoned(grad_output.shape(), dtype, device);
  Tensor grad_input = poisoned(input.shape(), dtype, device);
  Tensor grad_grid = poisoned(grid.shape(), dtype, device);
  const GridSample& kernels = grid_sample_on(device);
  kernels.forward(there(input), there(grid), options, output);
  kernels.backward_input(there(grad_output), there(grid), options, grad_input);
  kernels.backward_grid(there(grad_output), there(input), there(grid), options, grad_grid);
  return {output, grad_input, grad_grid};
}

TEST(GridSample, BlendsTheFourNeighboursOfAnImage) {
  const Tensor image = Tensor::from<float>({0, 1, 2, 3}, {1, 1, 2, 2});
  // The centre; half a voxel left of the lower left voxel; a whole voxel left of it.
  const Tensor grid = Tensor::from<float>({0, 0, -2, 1, -3, 1}, {1, 1, 3, 2});
  const auto sample = [&](Boundary boundary) {
    return grid_sample(Variable(image), Variable(grid), {Interpolation::linear, boundary, true})
        .value()
        .to_vector<float>();
  };
  EXPECT_EQ(sample(Boundary::zeros), (std::vector<float>{1.5f, 1.0f, 0.0f}));
  EXPECT_EQ(sample(Boundary::border), (std::vector<float>{1.5f, 2.0f, 2.0f}));
  EXPECT_EQ(sample(Boundary::reflection), (std::vector<float>{1.5f, 2.5f, 3.0f}));
}

TEST(GridSample, NearestTakesTheEvenVoxelAtHalfPositions) {
  const Tensor image = Tensor::from<float>({10, 11, 12, 13}, {1, 1, 1, 4});
  const Tensor grid = Tensor::from<float>({-2.0f / 3, 0, 0, 0, 2.0f / 3, 0}, {1, 1, 3, 2});
  const Variable output =
      grid_sample(Variable(image), Variable(grid), {Interpolation::nearest, Boundary::zeros, true});
  EXPECT_EQ(output.value().to_vector<float>()[1], 12.0f);  // position 1.5
}

TEST(GridSample, GradientsMatchDifferences) {
  const Tensor image_2d = random_tensor({2, 2, 4, 5}, 1, -1, 1, DType::f64);
  const Tensor grid_2d = random_tensor({2, 3, 4, 2}, 2, -1.6, 1.6, DType::f64);
  const Tensor image_3d = random_tensor({1, 2, 3, 4, 5}, 3, -1, 1, DType::f64);
  const Tensor grid_3d = random_tensor({1, 2, 3, 4, 3}, 4, -1.6, 1.6, DType::f64);
  for (const GridSampleOptions& options : all_options()) {
    const auto fn = [&](const std::vector<Variable>& in) { return grid_sample(in[0], in[1], options); };
    const GradcheckResult flat = gradcheck(fn, {image_2d, grid_2d}, {.max_entries = 60});
    EXPECT_TRUE(flat) << "2-D " << describe(options) << '\n' << flat.message;
    const GradcheckResult deep = gradcheck(fn, {image_3d, grid_3d}, {.max_entries = 60});
    EXPECT_TRUE(deep) << "3-D " << describe(options) << '\n' << deep.message;
  }
}

TEST(GridSample, GradcheckRejectsTheGradientOfAnotherBoundary) {
  const GridSampleOptions zeros{Interpolation::linear, Boundary::zeros, false};
  const GridSampleOptions border{Interpolation::linear, Boundary::border, false};
  const auto wrong = [&](const std::vector<Variable>& in) {
    const Tensor image = in[0].value();
    const Tensor grid = in[1].value();
    return record_one("wrong", grid_sample(in[0], in[1], zeros).value(), in, [=](const Tensor& grad_output) {
      const auto grads = run_all(Device::cpu(), DType::f64, image, grid, grad_output, border);
      return std::vector<Tensor>{grads[1], grads[2]};
    });
  };
  EXPECT_FALSE(gradcheck(wrong, {random_tensor({1, 1, 3, 4}, 5, -1, 1, DType::f64),
                                 random_tensor({1, 3, 3, 2}, 6, -1.4, 1.4, DType::f64)}));
}

TEST(GridSample, BitsDoNotDependOnTheNumberOfThreads) {
  const Tensor image = random_tensor({2, 2, 17, 19, 23}, 7);
  const Tensor grid = random_tensor({2, 21, 22, 23, 3}, 8, -1.2, 1.2);
  const Tensor grad = random_tensor({2, 2, 21, 22, 23}, 9);
  const auto compute = [&] { return run_all(Device::cpu(), DType::f32, image, grid, grad, {}); };
  const auto one = on_threads(1, compute);
  const auto three = on_threads(3, compute);
  for (std::size_t k = 0; k < one.size(); ++k) EXPECT_TRUE(same_values(one[k], three[k])) << k;
}

TEST(GridSample, RefusesMisfits) {
  const Variable image(random_tensor({1, 2, 3, 4, 5}, 1));
  const auto sample = [&](const Shape& grid, DType dtype = DType::f32) {
    return grid_sample(image, Variable(Tensor::zeros(grid, dtype)), {});
  };
  EXPECT_NO_THROW(sample({1, 2, 2, 2, 3}));
  EXPECT_THROW(sample({1, 2, 2, 2, 2}), Error);
  EXPECT_THROW(sample({2, 2, 2, 2, 3}), Error);
  EXPECT_THROW(sample({1, 2, 2, 3}), Error);
  EXPECT_THROW(sample({1, 2, 2, 2, 3}, DType::f64), Error);
  Tensor output = Tensor::zeros({1, 2, 2, 2, 3});
  EXPECT_THROW(
      grid_sample_on(Device::cpu()).forward(image.value(), Tensor::zeros({1, 2, 2, 2, 3}), {}, output),
      Error);
}

class GridSampleOn : public OnDevice {};

TEST_P(GridSampleOn, AgreesWithFloat64AndAssigns) {
  struct Sizes {
    Shape input, grid, output;
  };
  for (const Sizes& sizes : {Sizes{{2, 3, 5, 7, 31}, {2, 3, 5, 37, 3}, {2, 3, 3, 5, 37}},
                             Sizes{{3, 1, 13, 1}, {3, 5, 11, 2}, {3, 1, 5, 11}}}) {
    const Tensor input = random_tensor(sizes.input, 11);
    const Tensor grid = random_tensor(sizes.grid, 12, -1.3, 1.3);
    const Tensor grad = random_tensor(sizes.output, 13);
    for (const GridSampleOptions& options : all_options()) {
      const auto expected = run_all(Device::cpu(), DType::f64, input, grid, grad, options);
      const auto actual = run_all(device(), DType::f32, input, grid, grad, options);
      const auto again = run_all(device(), DType::f32, input, grid, grad, options);
      for (std::size_t k = 0; k < expected.size(); ++k) {
        EXPECT_LE(relative_error(actual[k], expected[k]), 1e-5) << k << ' ' << describe(options);
        EXPECT_TRUE(same_values(actual[k], again[k])) << k << ' ' << describe(options);
      }
    }
  }
}

TEST_P(GridSampleOn, SmoothGridsShareCellsBetweenNeighbours) {
  // Steps of a third of a voxel and of a whole voxel: neighbours in one cell, and in cells side by side.
  for (const std::int64_t width : {39, 14}) {
    const Tensor input = random_tensor({1, 2, 4, 5, 14}, 21);
    const Tensor grad = random_tensor({1, 2, 4, 5, width}, 22);
    std::vector<float> points;
    for (int z = 0; z < 4; ++z) {
      for (int y = 0; y < 5; ++y) {
        for (std::int64_t x = 0; x < width; ++x) {
          points.push_back(-1.05f + 2.1f * static_cast<float>(x) / static_cast<float>(width - 1));
          points.push_back(0.4f * static_cast<float>(y) - 0.81f);
          points.push_back(0.5f * static_cast<float>(z) - 0.77f);
        }
      }
    }
    const Tensor grid = Tensor::from(points, {1, 4, 5, width, 3});
    const auto expected = run_all(Device::cpu(), DType::f64, input, grid, grad, {});
    const auto actual = run_all(device(), DType::f32, input, grid, grad, {});
    for (std::size_t k = 0; k < expected.size(); ++k)
      EXPECT_LE(relative_error(actual[k], expected[k]), 2e-6) << k;
  }
}

TEST_P(GridSampleOn, InputGradientHoldsAtAnyMagnitudeAndWhenAllPointsMeet) {
  const Tensor grid = Tensor::full({1, 33, 35, 2}, 0.1);
  for (const double magnitude : {1e-30, 1e-12, 1.0, 1e30}) {
    const Tensor grad = random_tensor({1, 1, 33, 35}, 31, 0.5 * magnitude, magnitude);
    const Tensor input = Tensor::zeros({1, 1, 3, 3});
    const auto expected = run_all(Device::cpu(), DType::f64, input, grid, grad, {});
    const auto actual = run_all(device(), DType::f32, input, grid, grad, {});
    EXPECT_LE(relative_error(actual[1], expected[1]), 1e-5) << magnitude;
  }
}

TEST_P(GridSampleOn, NanAndFarCoordinatesStayWhereTheyAre) {
  const Tensor input = random_tensor({1, 1, 3, 4}, 41);
  const Tensor grid = Tensor::from<float>({float(kNan), 0, 1e30f, 0, -1e30f, 0.2f, 0.1f, 0.2f}, {1, 1, 4, 2});
  const Tensor grad = Tensor::full({1, 1, 1, 4}, 1.0);
  const auto found = run_all(device(), DType::f32, input, grid, grad, {});
  const std::vector<float> output = found[0].to_vector<float>();
  EXPECT_TRUE(std::isnan(output[0]));
  EXPECT_EQ(output[1], 0.0f);
  EXPECT_EQ(output[2], 0.0f);
  EXPECT_TRUE(std::isfinite(output[3]));
  double total = 0.0;
  for (const double value : found[1].to_vector<double>()) total += value;
  EXPECT_NEAR(total, 1.0, 1e-6);  // only the last point lies inside
  EXPECT_TRUE(std::isnan(found[2].to_vector<float>()[0]));
  EXPECT_TRUE(std::isfinite(found[2].to_vector<float>()[6]));
}

TEST_P(GridSampleOn, NoPointsGiveNoOutputAndZeroGradient) {
  const Tensor input = random_tensor({1, 2, 3, 4}, 51);
  const auto found =
      run_all(device(), DType::f32, input, Tensor::zeros({1, 0, 5, 2}), Tensor::zeros({1, 2, 0, 5}), {});
  EXPECT_TRUE(same_values(found[1], Tensor::zeros(input.shape())));
}

TEST(GridSampleOnCuda, AsksForFloat32) {
  if (cuda_status().device_count == 0) GTEST_SKIP() << cuda_status().reason;
  const Variable image(Tensor::zeros({1, 1, 2, 2}, DType::f64, Device::cuda()));
  EXPECT_THROW(grid_sample(image, Variable(Tensor::zeros({1, 1, 1, 2}, DType::f64, Device::cuda())), {}),
               Error);
}

CINNABAR_ON_EACH_DEVICE(GridSampleOn);

}  // namespace
}  // namespace cinnabar::testing
