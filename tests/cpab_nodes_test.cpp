#include "autograd/cpab_nodes.hpp"

#include <gtest/gtest.h>

#include "autograd/cpab.hpp"
#include "autograd/gradcheck.hpp"
#include "tests/devices.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {
namespace {

using Boxes = std::vector<std::int32_t>;

CpabSpace nodal_space(const Boxes& boxes, bool zero_boundary = true, DType dtype = DType::f64,
                      Device device = Device::cpu()) {
  return CpabSpace(boxes, {.zero_boundary = zero_boundary}, dtype, device, CpabParameters::nodal);
}

/// Velocities [N, vertices, d] that theta gives the vertices.
Tensor nodes_of(const Tensor& theta, const Tensor& places) {
  Tensor nodes = Tensor::zeros({theta.shape(0), places.shape(0), places.shape(1)}, DType::f64);
  for (std::int64_t i = 0; i < nodes.numel(); ++i) {
    const std::int32_t place = places.data<std::int32_t>()[i % places.numel()];
    if (place < 0) continue;
    nodes.data<double>()[i] = theta.data<double>()[i / places.numel() * theta.shape(1) + place];
  }
  return nodes;
}

TEST(CpabNodes, OneVertexOfASquareMovesItsCells) {
  // A single free vertex, the centre of the box, moved along x: v_x falls from 1 there to 0 on all sides.
  const CpabTessellation tessellation({1, 1});
  const Tensor places = cpab_node_places(tessellation, {});
  const Tensor maps =
      cpab_maps_of_nodes(Variable(Tensor::from<double>({1.0, 0.0}, {1, 2})), places, tessellation.grid())
          .value();
  // v_x is 2 y below the centre, 2 (1 - x) right of it, 2 (1 - y) above and 2 x left of it.
  const Tensor expected = Tensor::from<double>({0, 2,  0, 0, 0, 0, -2, 0, 2, 0, 0, 0,  //
                                                0, -2, 2, 0, 0, 0, 2,  0, 0, 0, 0, 0},
                                               {1, 4, 2, 3});
  EXPECT_LE(relative_error(maps.reshape({1, 4, 2, 3}), expected), 1e-15);
}

TEST(CpabNodes, MapsAreThoseOfTheTessellation) {
  for (const Boxes& boxes : {Boxes{5}, {3, 4}, {2, 3, 4}}) {
    for (const bool zero_boundary : {true, false}) {
      const CpabSpace space = nodal_space(boxes, zero_boundary);
      const Tensor places = cpab_node_places(space.tessellation(), {.zero_boundary = zero_boundary});
      const Tensor theta = random_tensor({2, space.dim()}, 1, -1, 1, DType::f64);
      const Tensor nodes = nodes_of(theta, places);
      const Tensor expected =
          space.tessellation().maps_from_matrices(space.tessellation().matrices_from_nodes(nodes));
      EXPECT_LE(relative_error(space.maps(Variable(theta)).value(), expected), 1e-13);
    }
  }
}

TEST(CpabNodes, GradientsMatchDifferences) {
  for (const Boxes& boxes : {Boxes{4}, {3, 2}, {2, 1, 2}}) {
    const CpabSpace space = nodal_space(boxes, false);
    const Tensor theta = random_tensor({2, space.dim()}, 2, -0.3, 0.3, DType::f64);
    const Tensor points = random_tensor({6, space.dims()}, 3, 0.02, 0.98, DType::f64);
    const GradcheckResult maps = gradcheck([&](const std::vector<Variable>& in) { return space.maps(in[0]); },
                                           {theta}, {.max_entries = 40});
    EXPECT_TRUE(maps) << maps.message;
    const GradcheckResult flow =
        gradcheck([&](const std::vector<Variable>& in) { return cpab_flow(in[0], in[1], space); },
                  {points, theta}, {.max_entries = 40});
    EXPECT_TRUE(flow) << flow.message;
  }
}

TEST(CpabNodes, GradcheckRejectsTheGradientOfAnotherVertex) {
  const CpabSpace space = nodal_space({3, 3});
  const auto wrong = [&](const std::vector<Variable>& in) {
    const Tensor theta = in[0].value();
    return record_one("wrong", space.maps(in[0]).value(), in, [&, theta](const Tensor& grad_maps) {
      const RecordingScope recording(true);
      const Variable parameters(theta, true);
      space.maps(parameters).backward(grad_maps);
      Tensor shifted = parameters.grad().clone();
      for (std::int64_t i = 0; i + 2 < shifted.numel(); ++i)
        shifted.data<double>()[i] = parameters.grad().data<double>()[i + 2];
      return std::vector<Tensor>{shifted};
    });
  };
  EXPECT_FALSE(gradcheck(wrong, {random_tensor({1, space.dim()}, 4, -1, 1, DType::f64)}));
}

TEST(CpabNodes, BothParametersSpanTheSameSpace) {
  for (const Boxes& boxes : {Boxes{6}, {3, 2}, {2, 2, 3}}) {
    for (const bool zero_boundary : {true, false}) {
      const CpabSpace nodal = nodal_space(boxes, zero_boundary);
      const CpabSpace space(boxes, {.zero_boundary = zero_boundary}, DType::f64);
      ASSERT_EQ(nodal.dim(), space.dim());
      const Tensor theta = random_tensor({2, space.dim()}, 5, -1, 1, DType::f64);
      const Tensor velocities = cpab_nodal_theta(space.basis(), theta);
      EXPECT_LE(relative_error(cpab_orthonormal_theta(space.basis(), velocities), theta), 1e-12);
      const Variable points(random_tensor({50, space.dims()}, 6, 0.02, 0.98, DType::f64));
      EXPECT_LE(relative_error(cpab_flow(points, Variable(velocities), nodal).value(),
                               cpab_flow(points, Variable(theta), space).value()),
                1e-11);
      const Tensor prior = cpab_nodal_theta(space.basis(), space.sample_prior(1, 0.3, 0.1, {.seed = 7}));
      EXPECT_LE(relative_error(nodal.sample_prior(1, 0.3, 0.1, {.seed = 7}), prior), 1e-12);
    }
  }
}

TEST(CpabNodes, ServeManyBoxes) {
  // A dense basis of these 25,137 fields would not be made.
  const CpabSpace space = nodal_space({20, 20, 20});
  EXPECT_EQ(space.dim(), 3 * 21 * 21 * 19);
  EXPECT_THROW(CpabSpace({20, 20, 20}), Error);
}

TEST(CpabNodes, RefusesMisfits) {
  const auto space = [](const CpabConstraints& constraints) {
    return CpabSpace({2, 2}, constraints, DType::f32, Device::cpu(), CpabParameters::nodal);
  };
  EXPECT_NO_THROW(space({}));
  EXPECT_THROW(space({.volume_preserving = true}), Error);
  EXPECT_THROW(space({.zero_boundary = false, .valid_outside = true}), Error);
  EXPECT_THROW(space({}).basis(), Error);
  EXPECT_THROW(space({}).maps(Variable(Tensor::zeros({1, 3}))), Error);
  const CpabTessellation tessellation({2, 2});
  const Tensor places = cpab_node_places(tessellation, {});
  Tensor maps = Tensor::zeros({1, 16, 2, 3});
  const auto forward = [&](const Shape& theta, const Tensor& where) {
    cpu::cpab_nodes.forward(Tensor::zeros(theta), where, tessellation.grid(), maps);
  };
  EXPECT_NO_THROW(forward({1, 14}, places));
  EXPECT_THROW(forward({2, 14}, places), Error);
  EXPECT_THROW(forward({1, 14}, Tensor::zeros({9, 2}, DType::i32)), Error);
  EXPECT_THROW(forward({1, 14}, Tensor::zeros({13, 2})), Error);
  EXPECT_THROW(cpab_nodal_theta(CpabBasis(tessellation, {}), Tensor::zeros({1, 3}, DType::f64)), Error);
}

class CpabNodesOn : public OnDevice {};
CINNABAR_ON_EACH_DEVICE(CpabNodesOn);

TEST_P(CpabNodesOn, AgreesWithFloat64AndAssigns) {
  for (const Boxes& boxes : {Boxes{131}, {7, 5}, {3, 2, 4}}) {
    for (const bool zero_boundary : {true, false}) {
      const CpabTessellation tessellation(boxes);
      const Tensor places = cpab_node_places(tessellation, {.zero_boundary = zero_boundary});
      const std::int64_t dim = nodal_space(boxes, zero_boundary).dim();
      const std::int64_t d = tessellation.dims();
      const Tensor theta = random_tensor({3, dim}, 11);
      const Tensor grad_maps = random_tensor({3, tessellation.cells(), d, d + 1}, 12);
      const auto on = [&](Device where, DType dtype) {
        std::vector<Tensor> found{poisoned(grad_maps.shape(), dtype, where),
                                  poisoned(theta.shape(), dtype, where)};
        const CpabNodes& kernels = cpab_nodes_on(where);
        kernels.forward(theta.to(dtype).to(where), places.to(where), tessellation.grid(), found[0]);
        kernels.backward(grad_maps.to(dtype).to(where), places.to(where), tessellation.grid(), found[1]);
        return found;
      };
      const auto expected = on(Device::cpu(), DType::f64);
      const auto actual = on(device(), DType::f32);
      const auto again = on(device(), DType::f32);
      for (std::size_t k = 0; k < actual.size(); ++k) {
        EXPECT_LE(relative_error(actual[k], expected[k]), 1e-6) << k << ' ' << boxes.size();
        EXPECT_TRUE(same_values(actual[k], again[k])) << k;
      }
    }
  }
}

}  // namespace
}  // namespace cinnabar::testing
