#include "kernels/cpab.hpp"

#include <algorithm>

#include "engine/divide_up.hpp"
#include "kernels/cpu/cpab_walks.hpp"

namespace cinnabar::cpu {
namespace {

constexpr const char* kOp = "cpab";
constexpr std::int64_t kGrain = 1024;  // points handed to a thread at once

/// Fields and points of a call.
template <class T, int D>
struct Call {
  CpabShape shape;
  CpabFields<T, D> fields;
  const T* points;

  Call(const Tensor& maps, const Tensor& point_tensor, const CpabGrid& grid, const CpabOptions& options,
       const CpabShape& call_shape)
      : shape(call_shape), fields(maps, grid, options), points(point_tensor.data<T>()) {}

  const T* point(std::int64_t n, std::int64_t p) const {
    return points + ((shape.shared_points ? 0 : n * shape.points) + p) * D;
  }
};

/// Walks every point: follow(walks, points, count, target) turns points into kNumbers each.
template <class Walks, int kNumbers, class T, int D, class Follow>
void walk_all(const Call<T, D>& call, const CpabOptions& options, T* target, const Follow& follow) {
  const CpabShape& shape = call.shape;
  const std::int64_t chunks = divide_up(shape.points, kGrain);
  parallel_for(shape.batch * chunks, 1, [&](std::int64_t first_chunk, std::int64_t last_chunk) {
    for (std::int64_t chunk = first_chunk; chunk < last_chunk; ++chunk) {
      const std::int64_t n = chunk / chunks;
      const std::int64_t p = chunk % chunks * kGrain;
      const CpabField<T, D> field = call.fields[n];
      Walks walks(field, options);
      follow(walks, call.point(n, p), static_cast<int>(std::min(kGrain, shape.points - p)),
             target + (n * shape.points + p) * kNumbers);
    }
  });
}

void forward(const Tensor& maps, const Tensor& points, const CpabGrid& grid, const CpabOptions& options,
             Tensor& output) {
  const CpabShape shape = cpab_shape(maps, points, grid, options, output);
  dispatch_cpab(kOp, maps.dtype(), grid, [&](auto type, auto dims) {
    using T = decltype(type);
    constexpr int D = decltype(dims)::value;
    const Call<T, D> call(maps, points, grid, options, shape);
    with_cpab_walks<T, D>(options, [&](auto walks_type) {
      using Walks = typename decltype(walks_type)::type;
      walk_all<Walks, D>(
          call, options, output.data<T>(),
          [](Walks& walks, const T* from, int count, T* ends) { walks.to_ends(from, count, ends); });
    });
  });
}

void log_determinant(const Tensor& maps, const Tensor& points, const CpabGrid& grid,
                     const CpabOptions& options, Tensor& result) {
  const CpabShape shape = cpab_shape(maps, points, grid, options, result, true);
  dispatch_cpab(kOp, maps.dtype(), grid, [&](auto type, auto dims) {
    using T = decltype(type);
    constexpr int D = decltype(dims)::value;
    const Call<T, D> call(maps, points, grid, options, shape);
    with_cpab_walks<T, D>(options, [&](auto walks_type) {
      using Walks = typename decltype(walks_type)::type;
      walk_all<Walks, 1>(call, options, result.data<T>(),
                         [](Walks& walks, const T* from, int count, T* values) {
                           walks.log_determinants(from, count, values);
                         });
    });
  });
}

void velocity(const Tensor& maps, const Tensor& points, const CpabGrid& grid, Tensor& result) {
  const CpabShape shape = cpab_shape(maps, points, grid, {}, result);
  dispatch_cpab(kOp, maps.dtype(), grid, [&](auto type, auto dims) {
    using T = decltype(type);
    constexpr int D = decltype(dims)::value;
    const T* map_data = maps.data<T>();
    const T* point_data = points.data<T>();
    T* target = result.data<T>();
    parallel_for(shape.batch * shape.points, kGrain, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        const std::int64_t n = i / shape.points;
        const T* point = point_data + (shape.shared_points ? i % shape.points : i) * D;
        cpab_velocity<T, D>(grid, map_data + n * shape.cells * D * (D + 1), point, target + i * D);
      }
    });
  });
}

template <class Walks, class T, int D>
void run_backward(const Call<T, D>& call, const CpabOptions& options, const T* grad_output, T* grad_maps,
                  T* grad_points) {
  const CpabShape& shape = call.shape;
  const CpabGrid& grid = call.fields.grid();
  CpabMapSums<T, D> sums(call.fields, shape.points, grad_maps != nullptr);
  const std::int64_t parts = sums.parts();
  parallel_for(shape.batch * parts, 1, [&](std::int64_t first_task, std::int64_t last_task) {
    for (std::int64_t task = first_task; task < last_task; ++task) {
      const std::int64_t n = task / parts;
      const std::int64_t part = task % parts;
      const CpabField<T, D> field = call.fields[n];
      CpabCellSums<D> sink = sums.part(n, part);
      Walks walks(field, options);
      T ends[kCpabBlock * D];
      T adjoints[kCpabBlock * D];
      const std::int64_t end = shape.points * (part + 1) / parts;
      for (std::int64_t p = shape.points * part / parts; p < end; p += kCpabBlock) {
        const int count = static_cast<int>(std::min<std::int64_t>(kCpabBlock, end - p));
        const std::int64_t at = (n * shape.points + p) * D;
        const auto seed = [&](int first, int seeds) {
          for (int i = first * D; i < (first + seeds) * D; ++i)
            adjoints[i] = grad_output[at + i] / static_cast<T>(grid.boxes[i % D]);
        };
        walks.there_and_back(call.point(n, p), count, ends, seed, adjoints, sink);
        for (int i = 0; i < count * D; ++i)
          grad_points[at + i] = adjoints[i] * static_cast<T>(grid.boxes[i % D]);
      }
    }
  });
  if (grad_maps != nullptr) sums.collect(grad_maps);
}

void backward(const Tensor& grad_output, const Tensor& maps, const Tensor& points, const CpabGrid& grid,
              const CpabOptions& options, Tensor& grad_maps, Tensor& grad_points) {
  const CpabShape shape = cpab_shape(maps, points, grid, options, grad_output);
  cpab_check_gradients(maps, grad_output, grad_maps, grad_points);
  dispatch_cpab(kOp, maps.dtype(), grid, [&](auto type, auto dims) {
    using T = decltype(type);
    constexpr int D = decltype(dims)::value;
    const Call<T, D> call(maps, points, grid, options, shape);
    with_cpab_walks<T, D>(options, [&](auto walks_type) {
      run_backward<typename decltype(walks_type)::type>(call, options, grad_output.data<T>(),
                                                        grad_maps.defined() ? grad_maps.data<T>() : nullptr,
                                                        grad_points.data<T>());
    });
  });
}

}  // namespace

extern const Cpab cpab;
const Cpab cpab{forward, backward, velocity, log_determinant};

}  // namespace cinnabar::cpu
