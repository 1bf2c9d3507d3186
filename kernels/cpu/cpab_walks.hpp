#pragma once

// Walks along a CPAB field on the CPU: point by point (CpabPointWalks, any walk), or a block at a time
// (CpabBlockWalks, the exact flow in 2-D and 3-D). Both have the same interface:
//
//   to_ends(points, count, ends)
//   log_determinants(points, count, values)
//   there_and_back(points, count, ends, seed, adjoints, sink), for up to kCpabBlock points
//
// `seed(first, count)` is told when the ends of those points are known, and sets their adjoints in cell
// units; they become the gradients with respect to the points, in cell units. Points that are NaN get NaN and
// add nothing to the sink.

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "kernels/cpu/cpab_block_tape.hpp"

namespace cinnabar::cpu {

template <class T, int D, class Walk>
class CpabPointWalks {
 public:
  CpabPointWalks(const CpabField<T, D>& field, const CpabOptions& options)
      : field_(field), steps_(options.steps) {}

  void to_ends(const T* points, int count, T* ends) const {
    for (int i = 0; i < count; ++i) to_end(points + i * D, ends + i * D);
  }
  void to_end(const T* point, T* end) const {
    if (is_nan(point)) return fill_with_nan(end, D);
    CpabMove<T, D> move{};
    Walk walk = fresh();
    walk.start(field_, point);
    while (walk.going()) walk.advance(field_, move);
    walk.finish(field_.grid, end);
  }

  void log_determinants(const T* points, int count, T* values) const {
    for (int i = 0; i < count; ++i) log_determinant(points + i * D, values + i);
  }
  void log_determinant(const T* point, T* value) const {
    if (is_nan(point)) return fill_with_nan(value, 1);
    Walk walk = fresh();
    *value = cpab_walk_log_determinant<T, D>(walk, field_, point);
  }

  template <class Seed, class Sink>
  void there_and_back(const T* points, int count, T* ends, const Seed& seed, T* adjoints, Sink& sink) const {
    for (int i = 0; i < count; ++i) {
      T* const adjoint = adjoints + i * D;
      there_and_back(points + i * D, adjoint, sink, [&](const T* end) {
        std::copy_n(end, D, ends + i * D);
        seed(i, 1);
      });
    }
  }
  /// Of one point; `seed(end)`.
  template <class Seed, class Sink>
  void there_and_back(const T* point, T* adjoint, Sink& sink, const Seed& seed) const {
    if (is_nan(point)) return fill_with_nan(adjoint, D);
    Walk walk = fresh();
    const auto seed_adjoint = [&](const T* end, T*) { seed(end); };
    cpab_walk_back<T, D>(walk, field_, point, seed_adjoint, adjoint, sink);
  }

 private:
  Walk fresh() const {
    if constexpr (std::is_constructible_v<Walk, int>) {
      return Walk(steps_);
    } else {
      return Walk();
    }
  }
  static bool is_nan(const T* point) {
    return std::any_of(point, point + D, [](T x) { return std::isnan(x); });
  }
  static void fill_with_nan(T* target, int count) {
    std::fill_n(target, count, std::numeric_limits<T>::quiet_NaN());
  }

  const CpabField<T, D>& field_;
  int steps_;
};

template <class T, int D>
class CpabBlockWalks {
 public:
  CpabBlockWalks(const CpabField<T, D>& field, const CpabOptions& options)
      : field_(field), one_(field, options), walk_(field), tape_(field) {}

  void to_ends(const T* points, int count, T* ends) {
    walk_.run(
        points, count, ends, [](int, const CpabMove<T, D>&) {},
        [&](int i) { one_.to_end(points + i * D, ends + i * D); });
  }

  void log_determinants(const T* points, int count, T* values) {
    std::vector<T> ends(static_cast<std::size_t>(count * D));
    std::fill_n(values, count, T(0));
    walk_.run(
        points, count, ends.data(),
        [&](int i, const CpabMove<T, D>& move) {
          values[i] += cpab_trace<T, D>(field_.map(move.cell)) * move.time;
        },
        [&](int i) { one_.log_determinant(points + i * D, values + i); });
  }

  template <class Seed, class Sink>
  void there_and_back(const T* points, int count, T* ends, const Seed& seed, T* adjoints, Sink& sink) {
    tape_.clear();
    bool alone[kCpabBlock] = {};
    walk_.run(
        points, count, ends, [&](int i, const CpabMove<T, D>& move) { tape_.add(i, move); },
        [&](int i) {
          alone[i] = true;
          one_.to_end(points + i * D, ends + i * D);
        });
    seed(0, count);
    for (int i = 0; i < count; ++i) {
      if (!alone[i] && tape_.holds(i)) continue;
      tape_.drop(i);
      one_.there_and_back(points + i * D, adjoints + i * D, sink, [](const T*) {});
    }
    tape_.undo(adjoints, sink);
  }

 private:
  const CpabField<T, D>& field_;
  CpabPointWalks<T, D, CpabExactWalk<T, D>> one_;
  CpabBlockWalk<T, D> walk_;
  CpabBlockTape<T, D> tape_;
};

/// Calls fn(type_identity<Walks>) with the class of walks that the options name.
template <class T, int D, class Function>
void with_cpab_walks(const CpabOptions& options, const Function& fn) {
  if (options.integrator == CpabIntegrator::steps) {
    fn(std::type_identity<CpabPointWalks<T, D, CpabStepWalk<T, D>>>());
  } else if constexpr (D == 1) {
    fn(std::type_identity<CpabPointWalks<T, 1, CpabLineWalk<T>>>());
  } else {
    fn(std::type_identity<CpabBlockWalks<T, D>>());
  }
}

}  // namespace cinnabar::cpu
