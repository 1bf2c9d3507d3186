#pragma once

// The way back of the walks of cpab_block.hpp: an undone move of all points (see cpab_adjoint.hpp) is one
// loop over their slots, which vectorises. Points with more moves than a tape holds are left to the walk of a
// single one.

#include <algorithm>

#include "kernels/cpu/cpab_block.hpp"

namespace cinnabar::cpu {

/// The moves of a block of points, to undo them.
template <class T, int D>
class CpabBlockTape {
 public:
  explicit CpabBlockTape(const CpabField<T, D>& field) : field_(field) {}

  void clear() { std::fill_n(moves_, kCpabBlock, 0); }
  void add(int point, const CpabMove<T, D>& move) {
    if (moves_[point] < kMost) move_[point][moves_[point]] = move;
    ++moves_[point];
  }
  /// Whether there was room for all moves of a point.
  bool holds(int point) const { return moves_[point] <= kMost; }
  void drop(int point) { moves_[point] = 0; }

  /// Undoes all moves: adjoints [kCpabBlock, d], in cell units, go from the ends to the points.
  template <class Sink>
  void undo(T* adjoints, Sink& sink) {
    used_ = 0;
    for (int i = 0; i < kCpabBlock; ++i) {
      if (moves_[i] == 0) continue;
      for (int a = 0; a < D; ++a) adjoint_.at[a][used_] = adjoints[i * D + a];
      point_[used_++] = i;
    }
    for (bool first = true; used_ > 0; first = false) {
      behind_ = 1 - behind_;
      for (int slot = 0; slot < used_; ++slot) take(slot, first);
      if (!first) undo_jumps();
      undo_moves();
      for (int slot = used_ - 1; slot >= 0; --slot) put(slot, adjoints, sink);
    }
  }

 private:
  using Count = CpabCount<T>;
  static constexpr int kMost = 32;
  static constexpr int kEntries = D * (D + 1);
  // Rows of a move.
  static constexpr int kU = 0;
  static constexpr int kMap = kU + D;
  static constexpr int kTime = kMap + kEntries;
  static constexpr int kRows = kTime + 1;

  void take(int slot, bool first) {
    const CpabMove<T, D>& move = move_[point_[slot]][--moves_[point_[slot]]];
    auto& at = row_[1 - behind_].at;
    const T* map = field_.map(move.cell);
    for (int a = 0; a < D; ++a) at[kU + a][slot] = move.u[a];
    for (int k = 0; k < kEntries; ++k) at[kMap + k][slot] = map[k];
    at[kTime][slot] = move.time;
    crossing_[slot] = first ? 0 : move.crossing;
    cell_[slot] = move.cell;
  }

  CpabJump<T, D> jump(int slot) const {
    T before[kEntries];
    T after[kEntries];
    T start[D];
    CINNABAR_UNROLL
    for (int k = 0; k < kEntries; ++k) {
      before[k] = row_[1 - behind_].at[kMap + k][slot];
      after[k] = row_[behind_].at[kMap + k][slot];
    }
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) start[a] = row_[behind_].at[kU + a][slot];
    return cpab_jump<T, D>(before, after, start, static_cast<std::int32_t>(crossing_[slot]));
  }

  void undo_jumps() {
#pragma GCC ivdep
    for (int i = 0; i < used_; ++i) jumps_[i] = crossing_[i] != 0 ? jump(i).counts : 0;
    for (int i = 0; i < used_; ++i) {
      if (jumps_[i] == 0) continue;
      T adjoint[D];
      for (int a = 0; a < D; ++a) adjoint[a] = adjoint_.at[a][i];
      cpab_undo_jump(jump(i), adjoint);
      for (int a = 0; a < D; ++a) adjoint_.at[a][i] = adjoint[a];
    }
  }

  void undo_moves() {
    const auto& at = row_[1 - behind_].at;
#pragma GCC ivdep
    for (int i = 0; i < used_; ++i) {
      CpabMove<T, D> move;
      T map[kEntries];
      T adjoint[D];
      T gain[kEntries];
      CINNABAR_UNROLL
      for (int a = 0; a < D; ++a) {
        move.u[a] = at[kU + a][i];
        adjoint[a] = adjoint_.at[a][i];
      }
      CINNABAR_UNROLL
      for (int k = 0; k < kEntries; ++k) map[k] = at[kMap + k][i];
      move.time = at[kTime][i];
      cpab_undo_series<T, D>(map, move, adjoint, gain);
      CINNABAR_UNROLL
      for (int a = 0; a < D; ++a) adjoint_.at[a][i] = adjoint[a];
      CINNABAR_UNROLL
      for (int k = 0; k < kEntries; ++k) gain_.at[k][i] = gain[k];
    }
  }

  template <class Sink>
  void put(int slot, T* adjoints, Sink& sink) {
    T gain[kEntries];
    for (int k = 0; k < kEntries; ++k) gain[k] = gain_.at[k][slot];
    sink.add(cell_[slot], gain);
    const int point = point_[slot];
    if (moves_[point] > 0) return;
    for (int a = 0; a < D; ++a) adjoints[point * D + a] = adjoint_.at[a][slot];
    const int last = --used_;
    adjoint_.move(last, slot);
    row_[1 - behind_].move(last, slot);
    point_[slot] = point_[last];
  }

  const CpabField<T, D>& field_;
  CpabMove<T, D> move_[kCpabBlock][kMost];
  int moves_[kCpabBlock];
  CpabRows<T, kRows> row_[2];  // of the present move, and of the one behind it
  int behind_ = 0;
  CpabRows<T, D> adjoint_;
  CpabRows<T, kEntries> gain_;
  alignas(64) Count crossing_[kCpabBlock];
  alignas(64) Count jumps_[kCpabBlock];
  std::int32_t cell_[kCpabBlock];
  int point_[kCpabBlock];
  int used_ = 0;  // slots
};

}  // namespace cinnabar::cpu
