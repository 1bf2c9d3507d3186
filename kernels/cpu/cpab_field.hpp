#pragma once

// CPAB fields on the CPU, for the ops that walk along them: a batch's cells as the walks read them, the types
// that a call asks for, and sums of the gradient of the cells that do not depend on the threads.

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/cpab.hpp"
#include "kernels/cpab_adjoint.hpp"
#include "kernels/parallel.hpp"

namespace cinnabar::cpu {

/// One batch entry's cells, as the walks read them.
template <class T, int D>
struct CpabField {
  CpabGrid grid;
  const T* records;
  const T* maps;

  const T* record(std::int32_t cell) const { return records + std::int64_t{cell} * CpabRecord<D>::kSize; }
  void load(std::int32_t cell, T* target) const { std::copy_n(record(cell), CpabRecord<D>::kSize, target); }
  const T* map(std::int32_t cell) const { return maps + std::int64_t{cell} * D * (D + 1); }
};

/// The fields of a batch, with the records of all cells.
template <class T, int D>
class CpabFields {
 public:
  CpabFields(const Tensor& maps, const CpabGrid& grid, const CpabOptions& options)
      : grid_(grid),
        steps_(options.integrator == CpabIntegrator::steps ? options.steps : 0),
        batch_(maps.shape(0)),
        cells_(maps.shape(1)),
        maps_(maps.data<T>()) {
    records_.resize(static_cast<std::size_t>(batch_ * cells_ * CpabRecord<D>::kSize));
    parallel_for(batch_ * cells_, 64, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) {
        cpab_prepare<T, D>(grid_, static_cast<std::int32_t>(i % cells_), steps_, map(i), record(i));
      }
    });
  }

  const CpabGrid& grid() const { return grid_; }
  std::int64_t batch() const { return batch_; }
  std::int64_t cells() const { return cells_; }
  /// 0 for the exact flow.
  int steps() const { return steps_; }
  /// Map of cell i of the batch.
  const T* map(std::int64_t i) const { return maps_ + i * D * (D + 1); }
  /// Batch entry n.
  CpabField<T, D> operator[](std::int64_t n) const {
    return {grid_, records_.data() + n * cells_ * CpabRecord<D>::kSize, map(n * cells_)};
  }

 private:
  T* record(std::int64_t i) { return records_.data() + i * CpabRecord<D>::kSize; }

  CpabGrid grid_;
  int steps_;
  std::int64_t batch_;
  std::int64_t cells_;
  const T* maps_;
  std::vector<T> records_;
};

/// Calls fn(T{}, integral_constant of the number of axes).
template <class Function>
void dispatch_cpab(const char* op, DType dtype, const CpabGrid& grid, const Function& fn) {
  dispatch_floating(op, dtype, [&](auto type) {
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

/// A Sink (kernels/cpab_adjoint.hpp) that sums what it receives in its order.
template <int D>
struct CpabCellSums {
  static constexpr int kEntries = D * (D + 1);
  double* sums = nullptr;  ///< [cells, d, d+1]; null where the gradient is not wanted

  template <class T>
  void add(std::int32_t cell, const T* gain) {
    if (sums == nullptr) return;
    for (int k = 0; k < kEntries; ++k)
      sums[std::int64_t{cell} * kEntries + k] += static_cast<double>(gain[k]);
  }
};

/// The gradient of a batch's maps, in parts that are each summed by one thread at a time and added in their
/// order.
template <class T, int D>
class CpabMapSums {
 public:
  /// `points` of each batch entry; without `wanted` there are no sums. The number of parts follows from the
  /// shape alone: about 64 in all, and at most 256 MB of sums.
  CpabMapSums(const CpabFields<T, D>& fields, std::int64_t points, bool wanted) : fields_(fields) {
    const std::int64_t by_points = points / 1024;
    const std::int64_t by_batch = 64 / std::max<std::int64_t>(fields.batch(), 1);
    const std::int64_t by_memory = (std::int64_t{1} << 24) / (fields.batch() * fields.cells() * kEntries + 1);
    parts_ = std::max<std::int64_t>(1, std::min({by_points, by_batch, by_memory}));
    if (wanted) sums_.resize(static_cast<std::size_t>(fields.batch() * parts_ * stride()), 0.0);
  }

  /// Parts of each batch entry.
  std::int64_t parts() const { return parts_; }
  CpabCellSums<D> part(std::int64_t n, std::int64_t part) {
    if (sums_.empty()) return {};
    return {sums_.data() + (n * parts_ + part) * stride()};
  }

  /// grad_maps = the parts' sums, in the stepping scheme taken through the exponential.
  void collect(T* grad_maps) const {
    parallel_for(fields_.batch() * fields_.cells(), 64, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) collect_cell(i, grad_maps + i * kEntries);
    });
  }

 private:
  static constexpr int kEntries = D * (D + 1);

  std::int64_t stride() const { return fields_.cells() * kEntries; }

  void collect_cell(std::int64_t i, T* grad_map) const {
    const std::int64_t n = i / fields_.cells();
    double total[kEntries] = {};
    for (std::int64_t part = 0; part < parts_; ++part) {
      const double* from = sums_.data() + (n * parts_ + part) * stride() + i % fields_.cells() * kEntries;
      for (int k = 0; k < kEntries; ++k) total[k] += from[k];
    }
    if (fields_.steps() > 0) {
      double map[kEntries];
      double of_step[kEntries];
      for (int k = 0; k < kEntries; ++k) {
        map[k] = static_cast<double>(fields_.map(i)[k]);
        of_step[k] = std::exchange(total[k], 0.0);
      }
      cpab_exponential_backward<D>(map, 1.0 / fields_.steps(), of_step, total);
    }
    for (int k = 0; k < kEntries; ++k) grad_map[k] = static_cast<T>(total[k]);
  }

  const CpabFields<T, D>& fields_;
  std::int64_t parts_ = 1;
  std::vector<double> sums_;
};

}  // namespace cinnabar::cpu
