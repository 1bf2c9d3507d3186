#include "kernels/cpab.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/cpab_field.hpp"

namespace cinnabar::cpu {
namespace {

constexpr const char* kOp = "cpab";
constexpr std::int64_t kGrain = 1024;  // points handed to a thread at once

template <class T, int D>
bool is_nan(const T* point) {
  T sum = T(0);
  for (int a = 0; a < D; ++a) sum += point[a] * T(0);
  return std::isnan(sum);
}

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

/// Walks every point; `result` turns its walk into numbers, NaN points into NaN.
template <class T, int D, int kNumbers, class Walk, class Result>
void walk_all(const Call<T, D>& call, const Walk& fresh, T* target, const Result& result) {
  const CpabShape& shape = call.shape;
  const std::int64_t chunks = (shape.points + kGrain - 1) / kGrain;
  parallel_for(shape.batch * chunks, 1, [&](std::int64_t first_chunk, std::int64_t last_chunk) {
    for (std::int64_t chunk = first_chunk; chunk < last_chunk; ++chunk) {
      const std::int64_t n = chunk / chunks;
      const std::int64_t end = std::min((chunk % chunks + 1) * kGrain, shape.points);
      const CpabField<T, D> field = call.fields[n];
      Walk walk = fresh;
      for (std::int64_t p = chunk % chunks * kGrain; p < end; ++p) {
        const T* point = call.point(n, p);
        T* numbers = target + (n * shape.points + p) * kNumbers;
        if (is_nan<T, D>(point)) {
          std::fill_n(numbers, kNumbers, std::numeric_limits<T>::quiet_NaN());
        } else {
          result(walk, field, point, numbers);
        }
      }
    }
  });
}

/// Results of walk_all.
template <class T, int D>
struct EndPoint {
  template <class Walk>
  void operator()(Walk& walk, const CpabField<T, D>& field, const T* point, T* end) const {
    cpab_walk_to_end<T, D>(walk, field, point, end);
  }
};

template <class T, int D>
struct LogDeterminant {
  template <class Walk>
  void operator()(Walk& walk, const CpabField<T, D>& field, const T* point, T* value) const {
    *value = cpab_walk_log_determinant<T, D>(walk, field, point);
  }
};

void forward(const Tensor& maps, const Tensor& points, const CpabGrid& grid, const CpabOptions& options,
             Tensor& output) {
  const CpabShape shape = cpab_shape(maps, points, grid, options, output);
  dispatch_cpab(kOp, maps.dtype(), grid, [&](auto type, auto dims) {
    using T = decltype(type);
    constexpr int D = decltype(dims)::value;
    const Call<T, D> call(maps, points, grid, options, shape);
    with_cpab_walk<T, D>(options, [&](const auto& fresh) {
      walk_all<T, D, D>(call, fresh, output.data<T>(), EndPoint<T, D>());
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
    with_cpab_walk<T, D>(options, [&](const auto& fresh) {
      walk_all<T, D, 1>(call, fresh, result.data<T>(), LogDeterminant<T, D>());
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

template <class T, int D, class Walk>
void run_backward(const Call<T, D>& call, const Walk& fresh, const T* grad_output, T* grad_maps,
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
      for (std::int64_t p = shape.points * part / parts; p < shape.points * (part + 1) / parts; ++p) {
        const std::int64_t at = (n * shape.points + p) * D;
        if (is_nan<T, D>(call.point(n, p))) {
          std::fill_n(grad_points + at, D, std::numeric_limits<T>::quiet_NaN());
          continue;
        }
        const auto seed = [&](const T*, T* adjoint) {
          for (int a = 0; a < D; ++a) adjoint[a] = grad_output[at + a] / static_cast<T>(grid.boxes[a]);
        };
        T adjoint[D];
        Walk walk = fresh;
        cpab_walk_back<T, D>(walk, field, call.point(n, p), seed, adjoint, sink);
        for (int a = 0; a < D; ++a) grad_points[at + a] = adjoint[a] * static_cast<T>(grid.boxes[a]);
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
    with_cpab_walk<T, D>(options, [&](const auto& fresh) {
      run_backward<T, D>(call, fresh, grad_output.data<T>(),
                         grad_maps.defined() ? grad_maps.data<T>() : nullptr, grad_points.data<T>());
    });
  });
}

}  // namespace

extern const Cpab cpab;
const Cpab cpab{forward, backward, velocity, log_determinant};

}  // namespace cinnabar::cpu
