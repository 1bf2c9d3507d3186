#include "kernels/cpab.hpp"

#include <algorithm>
#include <limits>
#include <type_traits>
#include <vector>

#include "kernels/cpab_adjoint.hpp"
#include "kernels/parallel.hpp"

namespace cinnabar::cpu {
namespace {

constexpr const char* kOp = "cpab";
constexpr std::int64_t kGrain = 1024;  // points handed to a thread at once

std::size_t size(std::int64_t count) {
  return static_cast<std::size_t>(count);
}

/// One batch entry's cells, as the walks read them.
template <class T, int D>
struct Field {
  CpabGrid grid;
  const T* records;
  const T* maps;

  void load(std::int32_t cell, T* record) const {
    std::copy_n(records + std::int64_t{cell} * CpabRecord<D>::kSize, CpabRecord<D>::kSize, record);
  }
  const T* map(std::int32_t cell) const { return maps + std::int64_t{cell} * D * (D + 1); }
};

/// The records of all cells of all batch entries.
template <class T, int D>
std::vector<T> prepare(const T* maps, const CpabGrid& grid, const CpabOptions& options,
                       const CpabShape& shape) {
  std::vector<T> records(size(shape.batch * shape.cells * CpabRecord<D>::kSize));
  const int steps = options.integrator == CpabIntegrator::steps ? options.steps : 0;
  parallel_for(shape.batch * shape.cells, 64, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      cpab_prepare<T, D>(grid, static_cast<std::int32_t>(i % shape.cells), steps, maps + i * D * (D + 1),
                         records.data() + i * CpabRecord<D>::kSize);
    }
  });
  return records;
}

/// Calls fn(walk) with the walk that the options name.
template <class T, int D, class Function>
void with_walk(const CpabOptions& options, const Function& fn) {
  if (options.integrator == CpabIntegrator::steps) {
    fn(CpabStepWalk<T, D>(options.steps));
  } else if constexpr (D == 1) {
    fn(CpabLineWalk<T>());
  } else {
    fn(CpabExactWalk<T, D>());
  }
}

/// Calls fn(T{}, integral_constant of the number of axes).
template <class Function>
void dispatch(const Tensor& maps, const CpabGrid& grid, const Function& fn) {
  dispatch_floating(kOp, maps.dtype(), [&](auto type) {
    switch (grid.dims) {
      case 1:
        return fn(type, std::integral_constant<int, 1>{});
      case 2:
        return fn(type, std::integral_constant<int, 2>{});
      default:
        return fn(type, std::integral_constant<int, 3>{});
    }
  });
}

template <class T, int D>
bool is_nan(const T* point) {
  T sum = T(0);
  for (int a = 0; a < D; ++a) sum += point[a] * T(0);
  return std::isnan(sum);
}

/// Batch entry, points and cells of a call, by plain pointers.
template <class T, int D>
struct Call {
  CpabGrid grid;
  CpabShape shape;
  const T* maps;
  const T* points;
  std::vector<T> records;

  Call(const Tensor& map_tensor, const Tensor& point_tensor, const CpabGrid& cell_grid,
       const CpabOptions& options, const CpabShape& call_shape)
      : grid(cell_grid),
        shape(call_shape),
        maps(map_tensor.data<T>()),
        points(point_tensor.data<T>()),
        records(prepare<T, D>(maps, grid, options, shape)) {}

  Field<T, D> field(std::int64_t n) const {
    return {grid, records.data() + n * shape.cells * CpabRecord<D>::kSize,
            maps + n * shape.cells * D * (D + 1)};
  }
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
      const Field<T, D> field = call.field(n);
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
  void operator()(Walk& walk, const Field<T, D>& field, const T* point, T* end) const {
    CpabMove<T, D> move;
    walk.start(field, point);
    while (walk.next(field, move)) {
    }
    walk.finish(field.grid, end);
  }
};

template <class T, int D>
struct LogDeterminant {
  template <class Walk>
  void operator()(Walk& walk, const Field<T, D>& field, const T* point, T* value) const {
    *value = cpab_walk_log_determinant<T, D>(walk, field, point);
  }
};

void forward(const Tensor& maps, const Tensor& points, const CpabGrid& grid, const CpabOptions& options,
             Tensor& output) {
  const CpabShape shape = cpab_shape(maps, points, grid, options, output);
  dispatch(maps, grid, [&](auto type, auto dims) {
    using T = decltype(type);
    constexpr int D = decltype(dims)::value;
    const Call<T, D> call(maps, points, grid, options, shape);
    with_walk<T, D>(options, [&](const auto& fresh) {
      walk_all<T, D, D>(call, fresh, output.data<T>(), EndPoint<T, D>());
    });
  });
}

void log_determinant(const Tensor& maps, const Tensor& points, const CpabGrid& grid,
                     const CpabOptions& options, Tensor& result) {
  const CpabShape shape = cpab_shape(maps, points, grid, options, result, true);
  dispatch(maps, grid, [&](auto type, auto dims) {
    using T = decltype(type);
    constexpr int D = decltype(dims)::value;
    const Call<T, D> call(maps, points, grid, options, shape);
    with_walk<T, D>(options, [&](const auto& fresh) {
      walk_all<T, D, 1>(call, fresh, result.data<T>(), LogDeterminant<T, D>());
    });
  });
}

void velocity(const Tensor& maps, const Tensor& points, const CpabGrid& grid, Tensor& result) {
  const CpabShape shape = cpab_shape(maps, points, grid, {}, result);
  dispatch(maps, grid, [&](auto type, auto dims) {
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

/// Sums of the gradient of the cells over some points, added in the order of the points.
template <int D>
struct CellSums {
  static constexpr int kEntries = D * (D + 1);
  double* steps = nullptr;  ///< [cells, d, d+1]; null where the gradient is not wanted
  double* maps = nullptr;

  template <class T>
  void add_step(std::int32_t cell, const T* gain) {
    add(steps, cell, gain);
  }
  template <class T>
  void add_map(std::int32_t cell, const T* gain) {
    add(maps, cell, gain);
  }

 private:
  template <class T>
  static void add(double* sums, std::int32_t cell, const T* gain) {
    if (sums == nullptr) return;
    for (int k = 0; k < kEntries; ++k)
      sums[std::int64_t{cell} * kEntries + k] += static_cast<double>(gain[k]);
  }
};

/// How many parts the points of one batch entry are cut into. It follows from the shape alone, since the sums
/// of the parts are added in order; about 64 in all, and at most 256 MB of sums.
std::int64_t parts_of(const CpabShape& shape, int entries) {
  const std::int64_t by_points = shape.points / 1024;
  const std::int64_t by_batch = 64 / std::max<std::int64_t>(shape.batch, 1);
  const std::int64_t by_memory = (std::int64_t{1} << 24) / (shape.batch * shape.cells * entries + 1);
  return std::max<std::int64_t>(1, std::min({by_points, by_batch, by_memory}));
}

/// grad_maps = the parts' sums, those of whole steps taken through the exponential.
template <class T, int D>
void collect(const Call<T, D>& call, const std::vector<double>& sums, std::int64_t parts, T* grad_maps) {
  constexpr int kEntries = D * (D + 1);
  const CpabShape& shape = call.shape;
  parallel_for(shape.batch * shape.cells, 64, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      const std::int64_t n = i / shape.cells;
      double steps[kEntries] = {};
      double total[kEntries] = {};
      double map[kEntries];
      for (std::int64_t part = 0; part < parts; ++part) {
        const double* from =
            sums.data() + (((n * parts + part) * 2) * shape.cells + i % shape.cells) * kEntries;
        for (int k = 0; k < kEntries; ++k) steps[k] += from[k];
        for (int k = 0; k < kEntries; ++k) total[k] += from[shape.cells * kEntries + k];
      }
      for (int k = 0; k < kEntries; ++k) map[k] = static_cast<double>(call.maps[i * kEntries + k]);
      const bool stepped = std::any_of(steps, steps + kEntries, [](double sum) { return sum != 0.0; });
      const double time =
          static_cast<double>(call.records[size(i * CpabRecord<D>::kSize + CpabRecord<D>::kTime)]);
      if (stepped) cpab_exponential_backward<D>(map, time, steps, total);
      for (int k = 0; k < kEntries; ++k) grad_maps[i * kEntries + k] = static_cast<T>(total[k]);
    }
  });
}

template <class T, int D, class Walk>
void run_backward(const Call<T, D>& call, const Walk& fresh, const T* grad_output, T* grad_maps,
                  T* grad_points) {
  constexpr int kEntries = D * (D + 1);
  const CpabShape& shape = call.shape;
  const std::int64_t parts = parts_of(shape, kEntries);
  const std::int64_t block = 2 * shape.cells * kEntries;
  std::vector<double> sums(grad_maps == nullptr ? 0 : size(shape.batch * parts * block), 0.0);
  parallel_for(shape.batch * parts, 1, [&](std::int64_t first_task, std::int64_t last_task) {
    for (std::int64_t task = first_task; task < last_task; ++task) {
      const std::int64_t n = task / parts;
      const Field<T, D> field = call.field(n);
      CellSums<D> sink;
      if (grad_maps != nullptr) sink = {sums.data() + task * block, sums.data() + task * block + block / 2};
      for (std::int64_t p = shape.points * (task % parts) / parts;
           p < shape.points * (task % parts + 1) / parts; ++p) {
        const std::int64_t at = (n * shape.points + p) * D;
        if (is_nan<T, D>(call.point(n, p))) {
          std::fill_n(grad_points + at, D, std::numeric_limits<T>::quiet_NaN());
          continue;
        }
        T adjoint[D];
        for (int a = 0; a < D; ++a) adjoint[a] = grad_output[at + a] / static_cast<T>(call.grid.boxes[a]);
        Walk walk = fresh;
        cpab_walk_back<T, D>(walk, field, call.point(n, p), adjoint, sink);
        for (int a = 0; a < D; ++a) grad_points[at + a] = adjoint[a] * static_cast<T>(call.grid.boxes[a]);
      }
    }
  });
  if (grad_maps != nullptr) collect<T, D>(call, sums, parts, grad_maps);
}

void backward(const Tensor& grad_output, const Tensor& maps, const Tensor& points, const CpabGrid& grid,
              const CpabOptions& options, Tensor& grad_maps, Tensor& grad_points) {
  const CpabShape shape = cpab_shape(maps, points, grid, options, grad_output);
  cpab_check_gradients(maps, grad_output, grad_maps, grad_points);
  dispatch(maps, grid, [&](auto type, auto dims) {
    using T = decltype(type);
    constexpr int D = decltype(dims)::value;
    const Call<T, D> call(maps, points, grid, options, shape);
    with_walk<T, D>(options, [&](const auto& fresh) {
      run_backward<T, D>(call, fresh, grad_output.data<T>(),
                         grad_maps.defined() ? grad_maps.data<T>() : nullptr, grad_points.data<T>());
    });
  });
}

}  // namespace

extern const Cpab cpab;
const Cpab cpab{forward, backward, velocity, log_determinant};

}  // namespace cinnabar::cpu
