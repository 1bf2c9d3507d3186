#include "kernels/cpab_nodes.hpp"

#include "kernels/cpu/cpab_field.hpp"

namespace cinnabar::cpu {
namespace {

constexpr const char* kOp = "cpab_nodes";
constexpr std::int64_t kGrain = 512;  // cells or vertices handed to a thread at once

void forward(const Tensor& theta, const Tensor& places, const CpabGrid& grid, Tensor& maps) {
  cpab_nodes_check(theta, places, grid, maps);
  const std::int64_t cells = maps.shape(1);
  const std::int64_t dim = theta.shape(1);
  const auto* place = places.data<std::int32_t>();
  dispatch_cpab(kOp, maps.dtype(), grid, [&](auto type, auto dims) {
    using T = decltype(type);
    constexpr int D = decltype(dims)::value;
    const T* from = theta.data<T>();
    T* target = maps.data<T>();
    parallel_for(maps.shape(0) * cells, kGrain, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        const auto velocity = [&](std::int32_t vertex, int axis) {
          const std::int32_t k = place[vertex * D + axis];
          return k < 0 ? T(0) : from[i / cells * dim + k];
        };
        cpab_map_of_nodes<T, D>(grid, static_cast<std::int32_t>(i % cells), velocity,
                                target + i * D * (D + 1));
      }
    });
  });
}

void backward(const Tensor& grad_maps, const Tensor& places, const CpabGrid& grid, Tensor& grad_theta) {
  cpab_nodes_check(grad_theta, places, grid, grad_maps);
  const std::int64_t vertices = places.shape(0);
  const std::int64_t dim = grad_theta.shape(1);
  const auto* place = places.data<std::int32_t>();
  dispatch_cpab(kOp, grad_maps.dtype(), grid, [&](auto type, auto dims) {
    using T = decltype(type);
    constexpr int D = decltype(dims)::value;
    const std::int64_t field = grad_maps.shape(1) * D * (D + 1);
    const T* from = grad_maps.data<T>();
    T* target = grad_theta.data<T>();
    parallel_for(grad_maps.shape(0) * vertices, kGrain, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        T gradient[D];
        cpab_node_gradient<T, D>(grid, static_cast<std::int32_t>(i % vertices), from + i / vertices * field,
                                 gradient);
        for (int a = 0; a < D; ++a) {
          const std::int32_t k = place[i % vertices * D + a];
          if (k >= 0) target[i / vertices * dim + k] = gradient[a];
        }
      }
    });
  });
}

}  // namespace

extern const CpabNodes cpab_nodes;
const CpabNodes cpab_nodes{forward, backward};

}  // namespace cinnabar::cpu
