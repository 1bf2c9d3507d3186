#include "kernels/cpab_nodes.hpp"

#include "bench/bench.hpp"
#include "kernels/matmul.hpp"
#include "tests/tensors.hpp"

// Maps of 3-D fields from theta in float32, batch 16, and their gradient. The extent is the number of boxes
// an axis. The rival multiplies by a dense basis, as orthonormal parameters do. Bytes: theta and maps, each
// once.

namespace cinnabar {
namespace {

struct Setup {
  CpabTessellation tessellation;
  Tensor places;
  Tensor theta;
  Tensor maps;

  Setup(std::int64_t boxes, Device device)
      : tessellation(std::vector<std::int32_t>(3, static_cast<std::int32_t>(boxes))) {
    const Tensor on_host = cpab_node_places(tessellation, {});
    std::int64_t dim = 0;
    for (const std::int32_t place : on_host.to_vector<std::int32_t>()) dim += place >= 0 ? 1 : 0;
    places = on_host.to(device);
    theta = testing::random_tensor({16, dim}, 1).to(device);
    maps = testing::random_tensor({16, tessellation.cells(), 3, 4}, 2).to(device);
  }
  double bytes() const { return static_cast<double>(theta.bytes() + maps.bytes()); }
};

void cpab_nodes_forward(benchmark::State& state, Device device) {
  Setup s(state.range(0), device);
  bench::measure(state, device, {s.bytes(), 0},
                 [&] { cpab_nodes_on(device).forward(s.theta, s.places, s.tessellation.grid(), s.maps); });
}
CINNABAR_BENCH(cpab_nodes_forward, 4, 8);

void cpab_nodes_backward(benchmark::State& state, Device device) {
  Setup s(state.range(0), device);
  bench::measure(state, device, {s.bytes(), 0},
                 [&] { cpab_nodes_on(device).backward(s.maps, s.places, s.tessellation.grid(), s.theta); });
}
CINNABAR_BENCH(cpab_nodes_backward, 4, 8);

/// A dense basis: zeros take as long as any numbers.
Tensor basis_for(const Setup& s, Device device) {
  return Tensor::zeros({s.theta.shape(1), s.maps.numel() / 16}, DType::f32, device);
}

void dense_forward(benchmark::State& state, Device device) {
  const Setup s(state.range(0), device);
  const Tensor basis = basis_for(s, device);
  Tensor maps = s.maps.reshape({16, basis.shape(1)});
  bench::measure(state, device, {s.bytes(), 0},
                 [&] { matmul_on(device).forward(s.theta, false, basis, false, maps); });
}
void dense_backward(benchmark::State& state, Device device) {
  Setup s(state.range(0), device);
  const Tensor basis = basis_for(s, device);
  const Tensor maps = s.maps.reshape({16, basis.shape(1)});
  bench::measure(state, device, {s.bytes(), 0},
                 [&] { matmul_on(device).forward(maps, false, basis, true, s.theta); });
}
CINNABAR_RIVAL(cpab_nodes_forward, dense_forward, 4, 8);
CINNABAR_RIVAL(cpab_nodes_backward, dense_backward, 4, 8);

}  // namespace
}  // namespace cinnabar
