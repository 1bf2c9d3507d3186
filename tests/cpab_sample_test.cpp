#include "autograd/cpab_sample.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "autograd/elementwise.hpp"
#include "autograd/gradcheck.hpp"
#include "autograd/grid_sample.hpp"
#include "autograd/layout.hpp"
#include "kernels/cpab_sample.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"
#include "tests/threads.hpp"

namespace cinnabar::testing {
namespace {

using Boxes = std::vector<std::int32_t>;

const GridSampleOptions kFaces{Interpolation::linear, Boundary::border, false};
const GridSampleOptions kCentres{Interpolation::linear, Boundary::border, true};
const CpabOptions kScheme{CpabIntegrator::steps, 10};

std::vector<GridSampleOptions> all_samplings() {
  std::vector<GridSampleOptions> all;
  for (const auto boundary : {Boundary::zeros, Boundary::border, Boundary::reflection}) {
    for (const bool align : {false, true}) all.push_back({Interpolation::linear, boundary, align});
  }
  all.push_back({Interpolation::nearest, Boundary::zeros, false});
  return all;
}

std::string describe(const Boxes& boxes, const GridSampleOptions& sampling, const CpabOptions& flow) {
  return std::to_string(boxes.size()) + "-D, boundary " +
         std::to_string(static_cast<int>(sampling.boundary)) +
         (sampling.align_corners ? ", align_corners" : "") +
         (sampling.interpolation == Interpolation::nearest ? ", nearest" : "") +
         (flow.integrator == CpabIntegrator::steps ? ", steps" : "");
}

/// The same from an op for the flow and one for the sampling. 1-D images are sampled as images one voxel
/// high.
Variable unfused(const Variable& image, const Variable& theta, const CpabSpace& space,
                 const GridSampleOptions& sampling, const CpabOptions& flow = {}) {
  const std::vector<std::int64_t> extents(image.shape().begin() + 2, image.shape().end());
  const Variable points(cpab_grid_points(extents, sampling.align_corners, space.dtype(), space.device()));
  Variable grid = affine(cpab_flow(points, theta, space, flow), 2.0, -1.0);
  const bool line = space.dims() == 1;
  if (line) grid = pad(grid, {{0, 0}, {0, 0}, {0, 1}});  // y = 0
  const Variable wide = line ? unsqueeze(image, 2) : image;
  Shape shape{image.shape()[0]};
  for (int axis = 2; axis < wide.shape().rank(); ++axis) shape = shape.append(wide.shape()[axis]);
  const Variable result = grid_sample(wide, reshape(grid, shape.append(line ? 2 : space.dims())), sampling);
  return line ? squeeze(result, 2) : result;
}

/// Result, gradient of the image and gradient of theta.
template <class Warp>
std::vector<Tensor> run(const Warp& warp, const Tensor& image, const Tensor& theta, const Tensor& seed) {
  const Variable in(image, true), parameters(theta, true);
  const Variable result = warp(in, parameters);
  result.backward(seed);
  return {result.value(), in.grad(), parameters.grad()};
}

TEST(CpabSample, ZeroThetaIsTheImageItself) {
  const auto check = [](const Boxes& boxes, const Shape& shape) {
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
  const auto check = [](const Boxes& boxes, const Shape& shape) {
    const CpabSpace space(boxes, {.zero_boundary = boxes.size() == 3}, DType::f64);
    const Tensor image = random_tensor(shape, 2, -1, 1, DType::f64);
    const Tensor theta = random_tensor({shape[0], space.dim()}, 3, -0.3, 0.3, DType::f64);
    for (const GridSampleOptions& sampling : all_samplings()) {
      for (const CpabOptions& flow : {CpabOptions{}, kScheme}) {
        const auto fn = [&](const std::vector<Variable>& in) {
          return cpab_sample(in[0], in[1], space, sampling, flow);
        };
        const GradcheckResult result = gradcheck(fn, {image, theta}, {.max_entries = 15});
        EXPECT_TRUE(result) << describe(boxes, sampling, flow) << '\n' << result.message;
      }
    }
  };
  check({3}, {2, 1, 9});
  check({2, 2}, {1, 2, 5, 6});
  check({1, 2, 2}, {1, 1, 3, 4, 5});
}

TEST(CpabSample, GradcheckRejectsTheGradientOfTheOtherIntegrator) {
  const CpabSpace space({3, 3}, {}, DType::f64);
  const Tensor image = random_tensor({1, 1, 6, 7}, 8, -1, 1, DType::f64);
  const Tensor theta = random_tensor({1, space.dim()}, 9, -1, 1, DType::f64);
  const auto with_gradient_of = [&](const CpabOptions& other) {
    return gradcheck(
        [&](const std::vector<Variable>& in) {
          const Tensor x = in[0].value(), t = in[1].value();
          const Variable warped = cpab_sample(in[0], in[1], space, kFaces);
          return record_one("maybe wrong", warped.value(), in, [=, &space](const Tensor& grad_output) {
            const RecordingScope recording(true);
            const auto grads = run(
                [&](const Variable& a, const Variable& b) { return cpab_sample(a, b, space, kFaces, other); },
                x, t, grad_output);
            return std::vector<Tensor>{grads[1], grads[2]};
          });
        },
        {image, theta});
  };
  EXPECT_TRUE(with_gradient_of({}));
  EXPECT_FALSE(with_gradient_of({CpabIntegrator::steps, 4}));
}

TEST(CpabSample, BitsDoNotDependOnTheNumberOfThreads) {
  // More voxels than the ends kept at a time, which then cross batch entries.
  const Shape shape{3, 1, 300, 310};
  const CpabSpace space({3, 2});
  const Tensor image = random_tensor(shape, 4), seed = random_tensor(shape, 5);
  const Tensor theta = random_tensor({3, space.dim()}, 6, -0.5, 0.5);
  const auto fused = [&](const Variable& x, const Variable& t) { return cpab_sample(x, t, space, kFaces); };
  const auto one = on_threads(1, [&] { return run(fused, image, theta, seed); });
  const auto three = on_threads(3, [&] { return run(fused, image, theta, seed); });
  const auto composed = run(
      [&](const Variable& x, const Variable& t) { return unfused(x, t, space, kFaces); }, image, theta, seed);
  for (std::size_t k = 0; k < one.size(); ++k) {
    EXPECT_TRUE(same_values(one[k], three[k])) << k;
    EXPECT_LE(relative_error(one[k], composed[k]), 1e-4) << k;
  }
}

TEST(CpabSample, RefusesMisfits) {
  const CpabSpace space({2, 2});
  const auto warp = [&](const Shape& image, std::int64_t thetas, const CpabOptions& flow = {},
                        DType dtype = DType::f32) {
    return cpab_sample(Variable(Tensor::zeros(image, dtype)), Variable(Tensor::zeros({1, thetas})), space, {},
                       flow);
  };
  EXPECT_NO_THROW(warp({1, 2, 4, 4}, space.dim()));
  EXPECT_THROW(warp({1, 1, 4}, space.dim()), Error);
  EXPECT_THROW(warp({1, 1, 4, 4, 4}, space.dim()), Error);
  EXPECT_THROW(warp({2, 1, 4, 4}, space.dim()), Error);
  EXPECT_THROW(warp({1, 1, 4, 0}, space.dim()), Error);
  EXPECT_THROW(warp({1, 1, 4, 4}, space.dim() + 1), Error);
  EXPECT_THROW(warp({1, 1, 4, 4}, space.dim(), {CpabIntegrator::steps, 0}), Error);
  EXPECT_THROW(warp({1, 1, 4, 4}, space.dim(), {}, DType::f64), Error);
  const Tensor image = Tensor::zeros({1, 1, 4, 4}), maps = Tensor::zeros({1, 16, 2, 3});
  Tensor none, small = Tensor::zeros({1, 1, 4, 3});
  const auto backward = [&](const Tensor& grad_output, Tensor& grad_image, Tensor& grad_maps) {
    cpu::cpab_sample.backward(grad_output, image, maps, space.grid(), {}, {}, grad_image, grad_maps);
  };
  EXPECT_NO_THROW(backward(image, none, none));
  EXPECT_THROW(backward(small, none, none), Error);
  EXPECT_THROW(backward(image, small, none), Error);
  EXPECT_THROW(backward(image, none, small), Error);
}

/// Maps of fields that move by up to 0.8 boxes; those on the boundary that flow outwards are turned if
/// `inwards`.
Tensor random_maps(const CpabTessellation& tessellation, std::int64_t batch, bool inwards) {
  const std::int64_t d = tessellation.dims(), vertices = tessellation.vertices();
  const double speed = 0.8 / tessellation.grid().boxes[0];
  Tensor nodes = random_tensor({batch, vertices, d}, 21, -speed, speed, DType::f64);
  for (std::int64_t i = 0; inwards && i < nodes.numel(); ++i) {
    const std::int64_t vertex = i / d % vertices;
    double& velocity = nodes.data<double>()[i];
    const bool low = tessellation.vertex_positions().data<double>()[vertex * d + i % d] == 0.0;
    if (tessellation.on_boundary(vertex, static_cast<int>(i % d)))
      velocity = low ? std::abs(velocity) : -std::abs(velocity);
  }
  return tessellation.maps_from_matrices(tessellation.matrices_from_nodes(nodes));
}

class CpabSampleOn : public OnDevice {};
CINNABAR_ON_EACH_DEVICE(CpabSampleOn);

TEST_P(CpabSampleOn, SamplesASignalWhereATentOfVelocitiesBringsIt) {
  // v rises to log(2) / 2 at the middle of [0, 1]: the flow doubles the distance from 0 up to there and from
  // there on halves that from 1. So 0, 1/4, 1/2, 3/4, 1 go to 0, 1/2, 3/4, 7/8, 1.
  const CpabTessellation tessellation({2});
  const Tensor nodes = Tensor::from<double>({0.0, std::log(2.0) / 2, 0.0}, {1, 3, 1});
  const Tensor maps =
      tessellation.maps_from_matrices(tessellation.matrices_from_nodes(nodes)).to(DType::f32).to(device());
  const Tensor image = Tensor::from<float>({10, 20, 40, 80, 160}, {1, 1, 5}).to(device());
  Tensor output = poisoned_like(image), grad_image = poisoned_like(image), none;
  const CpabSample& kernels = cpab_sample_on(device());
  kernels.forward(image, maps, tessellation.grid(), kCentres, {}, output);
  EXPECT_LE(relative_error(output, Tensor::from<float>({10, 40, 80, 120, 160}, {1, 1, 5})), 1e-6);
  kernels.backward(Tensor::full(image.shape(), 1.0, DType::f32, device()), image, maps, tessellation.grid(),
                   kCentres, {}, grad_image, none);
  EXPECT_LE(relative_error(grad_image, Tensor::from<float>({1, 0, 1, 1.5, 1.5}, {1, 1, 5})), 1e-6);
}

TEST_P(CpabSampleOn, AgreesWithFloat64AndAssigns) {
  struct Case {
    Boxes boxes;
    Shape shape;
  };
  // 20 x 11 boxes are more cells than shared memory holds; 23 x 29 voxels are more than a block's.
  for (const Case& c : {Case{{7}, {2, 3, 67}},
                        {{3, 2}, {2, 2, 23, 29}},
                        {{20, 11}, {1, 1, 9, 31}},
                        {{2, 3, 2}, {2, 2, 3, 5, 7}}}) {
    const CpabTessellation tessellation(c.boxes);
    const Tensor to_all_sides = random_maps(tessellation, c.shape[0], false);
    const Tensor inwards = random_maps(tessellation, c.shape[0], true);
    const Tensor image = random_tensor(c.shape, 22), seed = random_tensor(c.shape, 23);
    for (const GridSampleOptions& sampling : all_samplings()) {
      // Rounding decides little where the exact flow stays inside, beside which fields jump, and where the
      // scheme makes a single step.
      for (const CpabOptions& flow : {CpabOptions{}, CpabOptions{CpabIntegrator::steps, 1}}) {
        const Tensor& maps = flow.integrator == CpabIntegrator::exact ? inwards : to_all_sides;
        const auto on = [&](Device where, DType dtype) {
          const auto there = [&](const Tensor& x) { return x.to(dtype).to(where); };
          std::vector<Tensor> found{poisoned(c.shape, dtype, where), poisoned(c.shape, dtype, where),
                                    poisoned(maps.shape(), dtype, where)};
          const CpabSample& kernels = cpab_sample_on(where);
          kernels.forward(there(image), there(maps), tessellation.grid(), sampling, flow, found[0]);
          kernels.backward(there(seed), there(image), there(maps), tessellation.grid(), sampling, flow,
                           found[1], found[2]);
          return found;
        };
        const auto expected = on(Device::cpu(), DType::f64);
        const auto actual = on(device(), DType::f32);
        const auto again = on(device(), DType::f32);
        for (std::size_t k = 0; k < actual.size(); ++k) {
          // Fifty steps in float32 lose 3.05e-5 on an H200, which fuses multiplications and additions.
          EXPECT_LE(relative_error(actual[k], expected[k]), k < 2 ? 5e-5 : 1e-4)
              << k << ' ' << describe(c.boxes, sampling, flow);
          EXPECT_TRUE(same_values(actual[k], again[k])) << k << ' ' << describe(c.boxes, sampling, flow);
        }
      }
    }
  }
}

TEST_P(CpabSampleOn, AgreesWithTheFlowAndTheSamplerApart) {
  const auto check = [&](const Boxes& boxes, const Shape& shape) {
    const CpabSpace space(boxes, {.zero_boundary = false}, DType::f32, device());
    const Tensor image = random_tensor(shape, 31).to(device()), seed = random_tensor(shape, 32).to(device());
    const Tensor theta = random_tensor({shape[0], space.dim()}, 33, -0.4, 0.4).to(device());
    for (const GridSampleOptions& sampling : all_samplings()) {
      for (const CpabOptions& flow : {CpabOptions{}, kScheme}) {
        const auto fused = run(
            [&](const Variable& x, const Variable& t) { return cpab_sample(x, t, space, sampling, flow); },
            image, theta, seed);
        const auto apart =
            run([&](const Variable& x, const Variable& t) { return unfused(x, t, space, sampling, flow); },
                image, theta, seed);
        for (std::size_t k = 0; k < fused.size(); ++k) {
          EXPECT_LE(relative_error(fused[k], apart[k]), 2e-5) << k << ' ' << describe(boxes, sampling, flow);
        }
      }
    }
  };
  check({5}, {3, 2, 37});
  check({3, 2}, {2, 3, 11, 13});
  check({2, 2, 2}, {1, 2, 5, 6, 7});
}

TEST_P(CpabSampleOn, NanBehavesAsInTheFlowAndTheSamplerApart) {
  const Shape shape{2, 1, 5, 6};
  const CpabSpace space({2, 2}, {.zero_boundary = false}, DType::f32, device());
  const auto compare = [&](Tensor image, Tensor theta) {
    const Tensor seed = random_tensor(shape, 43).to(device());
    image = image.to(device());
    theta = theta.to(device());
    const auto fused =
        run([&](const Variable& x, const Variable& t) { return cpab_sample(x, t, space, kFaces); }, image,
            theta, seed);
    const auto apart = run([&](const Variable& x, const Variable& t) { return unfused(x, t, space, kFaces); },
                           image, theta, seed);
    for (std::size_t k = 0; k < fused.size(); ++k) EXPECT_LE(relative_error(fused[k], apart[k]), 2e-5) << k;
    return fused;
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor image = random_tensor(shape, 41);
  const Tensor theta = random_tensor({2, space.dim()}, 42, -0.4, 0.4);
  Tensor no_flow = theta.clone(), hole = image.clone();
  for (std::int64_t k = 0; k < space.dim(); ++k) no_flow.data<float>()[space.dim() + k] = nan;
  hole.data<float>()[7] = nan;
  const auto values = compare(image, no_flow)[0].to_vector<float>();
  EXPECT_FALSE(std::isnan(values[0]));
  EXPECT_TRUE(std::isnan(values[30]));
  compare(hole, theta);
}

TEST_P(CpabSampleOn, EachGradientIsTheSameWithoutTheOther) {
  const CpabSpace space({2, 2}, {}, DType::f32, device());
  const Tensor image = random_tensor({1, 2, 9, 8}, 51).to(device());
  const Tensor seed = random_tensor({1, 2, 9, 8}, 52).to(device());
  const Tensor theta = random_tensor({1, space.dim()}, 53, -0.4, 0.4).to(device());
  const auto both =
      run([&](const Variable& x, const Variable& t) { return cpab_sample(x, t, space, kFaces); }, image,
          theta, seed);
  const Variable in(image, true), parameters(theta, true);
  cpab_sample(in, Variable(theta), space, kFaces).backward(seed);
  cpab_sample(Variable(image), parameters, space, kFaces).backward(seed);
  EXPECT_TRUE(same_values(in.grad(), both[1]));
  EXPECT_TRUE(same_values(parameters.grad(), both[2]));
}

}  // namespace
}  // namespace cinnabar::testing
