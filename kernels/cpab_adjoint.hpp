#pragma once

// Walks run backwards, for CPU and CUDA. `adjoint` is the gradient with respect to the point, in cell units,
// and goes from the end of each move to its start; a Sink's `add(cell, gain)` receives what the gradient of a
// cell gains: of its record's S in the stepping scheme, else of its map.
//
// The moves are kept in segments of kSegment; of earlier segments only the state at their start, from which
// they are walked again.

#include "kernels/cpab_exact_walk.hpp"
#include "kernels/cpab_line_walk.hpp"
#include "kernels/cpab_step_walk.hpp"

namespace cinnabar {

/// gain = outer product of the adjoint and [u; 1].
template <class T, int D>
CINNABAR_HD void cpab_outer(const T* adjoint, const T* u, T* gain) {
  CINNABAR_UNROLL
  for (int r = 0; r < D; ++r) {
    CINNABAR_UNROLL
    for (int k = 0; k < D; ++k) gain[r * (D + 1) + k] = adjoint[r] * u[k];
    gain[r * (D + 1) + D] = adjoint[r];
  }
}

/// adjoint += scale L^T change.
template <class T, int D>
CINNABAR_HD void cpab_pull_back(const T* map, const T* change, T scale, T* adjoint) {
  T sum[D];
  CINNABAR_UNROLL
  for (int k = 0; k < D; ++k) {
    sum[k] = map[k] * change[0];
    CINNABAR_UNROLL
    for (int r = 1; r < D; ++r) sum[k] = cpab_multiply_add(map[r * (D + 1) + k], change[r], sum[k]);
  }
  CINNABAR_UNROLL
  for (int k = 0; k < D; ++k) adjoint[k] = cpab_multiply_add(scale, sum[k], adjoint[k]);
}

/// A move in 2-D or 3-D: the adjoint of cpab_series, term by term from the last one.
template <class T, int D>
CINNABAR_HD void cpab_undo_series(const T* map, const CpabMove<T, D>& move, T* adjoint, T* gain) {
  constexpr int kTerms = CpabLimits<T>::kTerms;
  T term[kTerms][D];
  cpab_series<T, D>(map, move.u, move.time, term);
  T change[D];
  CINNABAR_UNROLL
  for (int a = 0; a < D; ++a) change[a] = adjoint[a];
  CINNABAR_UNROLL
  for (int i = 0; i < D * (D + 1); ++i) gain[i] = T(0);
  CINNABAR_UNROLL
  for (int k = kTerms - 1; k > 0; --k) {
    const T scale = move.time * (T(1) / static_cast<T>(k + 1));
    CINNABAR_UNROLL
    for (int r = 0; r < D; ++r) {
      const T weight = scale * change[r];
      CINNABAR_UNROLL
      for (int c = 0; c < D; ++c)
        gain[r * (D + 1) + c] = cpab_multiply_add(weight, term[k - 1][c], gain[r * (D + 1) + c]);
    }
    T before[D];
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) before[a] = adjoint[a];
    cpab_pull_back<T, D>(map, change, scale, before);
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) change[a] = before[a];
  }
  CINNABAR_UNROLL
  for (int r = 0; r < D; ++r) {
    CINNABAR_UNROLL
    for (int c = 0; c < D; ++c)
      gain[r * (D + 1) + c] = cpab_multiply_add(move.time * change[r], move.u[c], gain[r * (D + 1) + c]);
    gain[r * (D + 1) + D] = move.time * change[r];
  }
  cpab_pull_back<T, D>(map, change, move.time, adjoint);
}

/// A move in closed form.
template <class T>
CINNABAR_HD void cpab_undo_line(const T* map, const CpabMove<T, 1>& move, T* adjoint, T* gain) {
  const T z = map[0] * move.time;
  const T reach = move.time * cpab_expm1_ratio(z);
  T velocity;
  cpab_apply<T, 1>(map, move.u, &velocity);
  gain[0] = *adjoint * (move.u[0] * reach + velocity * move.time * move.time * cpab_expm1_ratio_slope(z));
  gain[1] = *adjoint * reach;
  *adjoint *= std::exp(z);
}

/// How the velocity changes where a path goes through a face.
template <class T, int D>
struct CpabJump {
  T normal[D];
  T difference[D];  ///< before - after
  T through;        ///< velocity before, along the normal
  int counts;       ///< 1, or 0 where the field is continuous or the path grazes the face
};

/// Of the face at the end of a move; the next one starts at `start` in its own box.
template <class T, int D>
CINNABAR_HD CpabJump<T, D> cpab_jump(const T* map_before, const T* map_after, const T* start,
                                     std::int32_t crossing) {
  CpabJump<T, D> jump;
  T end[D];
  cpab_unpack_crossing<T, D>(crossing, jump.normal, end);
  CINNABAR_UNROLL
  for (int a = 0; a < D; ++a) end[a] += start[a];
  T before[D];
  T after[D];
  cpab_apply<T, D>(map_before, end, before);
  cpab_apply<T, D>(map_after, start, after);
  T largest = T(0);
  T scale = T(0);
  jump.through = T(0);
  CINNABAR_UNROLL
  for (int r = 0; r < D; ++r) {
    T size = std::abs(map_before[r * (D + 1) + D]);
    CINNABAR_UNROLL
    for (int k = 0; k < D; ++k) size += std::abs(map_before[r * (D + 1) + k] * end[k]);
    scale = size > scale ? size : scale;
    jump.difference[r] = before[r] - after[r];
    largest = std::abs(jump.difference[r]) > largest ? std::abs(jump.difference[r]) : largest;
    jump.through += jump.normal[r] * before[r];
  }
  const T least = CpabLimits<T>::kJump * scale;
  jump.counts = static_cast<int>(largest > least) & static_cast<int>(std::abs(jump.through) > least);
  return jump;
}

/// A change dx of the point changes the time of the exit by -n dx / (n v), and what follows by that times the
/// jump of the velocity.
template <class T, int D>
CINNABAR_HD void cpab_undo_jump(const CpabJump<T, D>& jump, T* adjoint) {
  T along = T(0);
  CINNABAR_UNROLL
  for (int a = 0; a < D; ++a) along += jump.difference[a] * adjoint[a];
  CINNABAR_UNROLL
  for (int a = 0; a < D; ++a) adjoint[a] -= jump.normal[a] * (along / jump.through);
}

template <class Walk>
struct CpabSegments;  // how many moves the gradient can take: kSegment * kSegments
template <class T, int D>
struct CpabSegments<CpabExactWalk<T, D>> {
  static constexpr int kSegments = 32;  // 511 exits and 512 shortest pieces, and the end
};
template <class T>
struct CpabSegments<CpabLineWalk<T>> {
  static constexpr int kSegments = 128;
};
template <class T, int D>
struct CpabSegments<CpabStepWalk<T, D>> {
  static constexpr int kSegments = 32;
};

/// Undoes one move; `next_cell` (-1 at the end of the walk) and `next_u` are where the move after it starts.
template <class Walk, class T, int D, class Field, class Sink>
CINNABAR_HD void cpab_undo(const Field& field, const CpabMove<T, D>& move, std::int32_t next_cell,
                           const T* next_u, T* adjoint, Sink& sink) {
  T gain[D * (D + 1)];
  T record[CpabRecord<D>::kSize];
  field.load(move.cell, record);
  if constexpr (Walk::kTabulated) {
    cpab_outer<T, D>(adjoint, move.u, gain);
    cpab_pull_back<T, D>(record, adjoint, T(1), adjoint);
  } else {
    if (move.crossing != 0 && next_cell >= 0) {
      T next_record[CpabRecord<D>::kSize];
      field.load(next_cell, next_record);
      const CpabJump<T, D> jump = cpab_jump<T, D>(record, next_record, next_u, move.crossing);
      if (jump.counts != 0) cpab_undo_jump(jump, adjoint);
    }
    if constexpr (D == 1) {
      cpab_undo_line<T>(record, move, adjoint, gain);
    } else {
      cpab_undo_series<T, D>(record, move, adjoint, gain);
    }
  }
  sink.add(move.cell, gain);
}

/// Divergence of a cell's velocity.
template <class T, int D>
CINNABAR_HD T cpab_trace(const T* map) {
  T trace = map[0];
  CINNABAR_UNROLL
  for (int a = 1; a < D; ++a) trace += map[a * (D + 2)];
  return trace;
}

/// Integral of the divergence along a walk.
template <class T, int D, class Walk, class Field>
CINNABAR_HD T cpab_walk_log_determinant(Walk& walk, const Field& field, const T* point) {
  CpabMove<T, D> move{};
  T sum = T(0);
  walk.start(field, point);
  while (walk.going()) {
    if (!walk.advance(field, move)) continue;
    sum += cpab_trace<T, D>(field.map(move.cell)) * move.time;
  }
  return sum;
}

/// Walks from `point` and back: `adjoint` becomes the gradient with respect to the point. At the end of the
/// way there `seed(end, adjoint)` sets it to the gradient with respect to the end, which it is told in domain
/// units.
template <class T, int D, class Walk, class Field, class Seed, class Sink>
CINNABAR_HD void cpab_walk_back(Walk& walk, const Field& field, const T* point, const Seed& seed, T* adjoint,
                                Sink& sink) {
  constexpr int kSegment = 32;
  constexpr int kSegments = CpabSegments<Walk>::kSegments;
  typename Walk::State saved[kSegments];
  CpabMove<T, D> tape[kSegment];
  walk.start(field, point);
  saved[0] = walk.state;
  int moves = 0;
  CpabMove<T, D> move{};
  while (walk.going() && moves < kSegment * kSegments) {
    if (!walk.advance(field, move)) continue;
    tape[moves % kSegment] = move;
    ++moves;
    if (moves % kSegment == 0 && moves < kSegment * kSegments) saved[moves / kSegment] = walk.state;
  }
  T end[D];
  walk.finish(field.grid, end);
  seed(static_cast<const T*>(end), adjoint);
  std::int32_t next_cell = -1;
  T next_u[D] = {};
  for (int last = moves; last > 0;) {
    const int first = (last - 1) / kSegment * kSegment;
    if (last < moves) {
      walk.resume(saved[first / kSegment]);
      for (int k = 0; k < kSegment;) {
        if (!walk.advance(field, move)) continue;
        tape[k] = move;
        ++k;
      }
    }
    for (int k = last - first - 1; k >= 0; --k) {
      move = tape[k];
      cpab_undo<Walk, T, D>(field, move, next_cell, next_u, adjoint, sink);
      next_cell = move.cell;
      CINNABAR_UNROLL
      for (int a = 0; a < D; ++a) next_u[a] = move.u[a];
    }
    last = first;
  }
}

}  // namespace cinnabar
