#pragma once

// The exact flow in 2-D and 3-D on the CPU, a block of points at a time. The points lie in slots; a round of
// all of them (see cpab_exact_walk.hpp) is one loop over the slots, which vectorises. What lies between, as
// new cells, is done point by point. A slot whose point has arrived gets the next one, or takes over the last
// slot, so those in use stay together. cpab_block_tape.hpp is the way back.
//
// What is rare is left to the walk of a single point: points beside the domain or on their way out of it, and
// paths along a face.

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/cpu/cpab_field.hpp"

namespace cinnabar::cpu {

constexpr int kCpabBlock = 64;

/// Whole numbers as wide as T: loops that have both vectorise better.
template <class T>
using CpabCount = std::conditional_t<sizeof(T) == 8, std::int64_t, std::int32_t>;

/// Numbers of the points of a block, a row for each quantity.
template <class T, int kRows>
struct CpabRows {
  alignas(64) T at[kRows][kCpabBlock];

  void move(int from, int to) {
    for (int row = 0; row < kRows; ++row) at[row][to] = at[row][from];
  }
};

/// The faces of all cells of a box.
template <class T, int D>
class CpabFaceTable {
 public:
  CpabFaceTable() {
    for (int parity = 0; parity < kParities; ++parity) {
      for (int type = 0; type < kCpabCellsPerBox<D>; ++type) {
        for (int face = 0; face <= D; ++face)
          faces_[parity][type][face] = cpab_face<T, D>(parity, type, face);
      }
    }
  }
  const CpabFace<T, D>& operator()(const CpabPlace<D>& place, int face) const {
    return faces_[place.parity()][place.type][face];
  }

 private:
  static constexpr int kParities = D == 3 ? 2 : 1;
  CpabFace<T, D> faces_[kParities][kCpabCellsPerBox<D>][D + 1];
};

/// Walks, a block of points at a time.
template <class T, int D>
class CpabBlockWalk {
 public:
  explicit CpabBlockWalk(const CpabField<T, D>& field) : field_(field), faces_(all_faces()) {}

  /// Walks `count` points to their ends. Calls moved(i, move) after each move of point i, and alone(i) where
  /// its walk is left to that of a single point, perhaps after moves.
  template <class Moved, class Alone>
  void run(const T* points, int count, T* ends, const Moved& moved, const Alone& alone) {
    points_ = points;
    count_ = count;
    next_ = 0;
    used_ = 0;
    while (used_ < kCpabBlock && fill(used_, alone)) ++used_;
    while (used_ > 0) {
      advance();
      for (int slot = used_ - 1; slot >= 0; --slot) {
        if (event_[slot] == kNone || attend_to(slot, ends, moved, alone) || fill(slot, alone)) continue;
        take_over(--used_, slot);
      }
    }
  }

 private:
  using Count = CpabCount<T>;
  static constexpr int kEntries = D * (D + 1);
  // Rows.
  static constexpr int kU = 0;
  static constexpr int kMap = kU + D;
  static constexpr int kNorm = kMap + kEntries;
  static constexpr int kFaces =
      kNorm + 1;  // normal and offset of each face; of one never left through 0 and 1
  static constexpr int kPiece = kFaces + (D + 1) * (D + 1);
  static constexpr int kElapsed = kPiece + 1;  // of the move
  static constexpr int kRemaining = kElapsed + 1;
  static constexpr int kStart = kRemaining + 1;
  static constexpr int kRows = kStart + D;
  // Events of a round; 1 + face where the point has come onto a face.
  static constexpr Count kNone = 0;
  static constexpr Count kPieceOver = -1;
  static constexpr Count kStuck = -2;

  static const CpabFaceTable<T, D>& all_faces() {
    static const CpabFaceTable<T, D> table;
    return table;
  }

  /// The next point that can be walked here; false if there is none.
  template <class Alone>
  bool fill(int slot, const Alone& alone) {
    for (; next_ < count_; alone(next_++)) {
      if (start(slot, points_ + next_ * D)) {
        point_[slot] = next_++;
        return true;
      }
    }
    return false;
  }

  bool start(int slot, const T* point) {
    T s[D];
    T u[D];
    bool finite = true;
    for (int a = 0; a < D; ++a) {
      s[a] = point[a] * static_cast<T>(field_.grid.boxes[a]);
      finite = finite && s[a] - s[a] == T(0);
    }
    const CpabPlace<D> place = cpab_locate<T, D>(field_.grid, s, u);
    if (!finite || !place.inside()) return false;
    place_[slot] = place;
    exits_[slot] = 0;
    rows_.at[kRemaining][slot] = T(1);
    for (int a = 0; a < D; ++a) rows_.at[kU + a][slot] = u[a];
    load_cell(slot);
    begin_move(slot);
    return true;
  }

  void load_cell(int slot) {
    const CpabPlace<D>& place = place_[slot];
    const T* record = field_.record(place.cell(field_.grid));
    for (int i = 0; i < kEntries; ++i) rows_.at[kMap + i][slot] = record[i];
    rows_.at[kNorm][slot] = record[CpabRecord<D>::kNorm];
    const int leaving = static_cast<int>(record[CpabRecord<D>::kExits]);
    for (int number = 0; number <= D; ++number) {
      const CpabFace<T, D>& face = faces_(place, number);
      const bool leads_out = (leaving >> number & 1) != 0;
      const int row = kFaces + number * (D + 1);
      for (int a = 0; a < D; ++a) rows_.at[row + a][slot] = leads_out ? face.normal[a] : T(0);
      rows_.at[row + D][slot] = leads_out ? face.offset : T(1);
    }
  }

  void begin_move(int slot) {
    T& remaining = rows_.at[kRemaining][slot];
    const T piece = std::min(remaining, cpab_longest_piece(rows_.at[kNorm][slot]));
    rows_.at[kPiece][slot] = piece;
    remaining -= piece;
    rows_.at[kElapsed][slot] = T(0);
    for (int a = 0; a < D; ++a) rows_.at[kStart + a][slot] = rows_.at[kU + a][slot];
    rounds_[slot] = 0;
  }

  /// One round of all points.
  void advance() {
    auto& at = rows_.at;
#pragma GCC ivdep
    for (int i = 0; i < used_; ++i) {
      T u[D];
      T map[kEntries];
      T velocity[D];
      T acceleration[D];
      T jerk[D];
      CINNABAR_UNROLL
      for (int a = 0; a < D; ++a) u[a] = at[kU + a][i];
      CINNABAR_UNROLL
      for (int k = 0; k < kEntries; ++k) map[k] = at[kMap + k][i];
      cpab_apply<T, D>(map, u, velocity);
      cpab_apply_linear<T, D>(map, velocity, acceleration);
      cpab_apply_linear<T, D>(map, acceleration, jerk);
      const T piece = at[kPiece][i];
      const T slack = cpab_slack<T, D>(at[kNorm][i], jerk, piece);
      CpabFace<T, D> face[D + 1];
      CpabFace<T, D> nearest{};
      T time = piece;
      Count number = 0;
      CINNABAR_UNROLL
      for (int f = 0; f <= D; ++f) {
        CINNABAR_UNROLL
        for (int a = 0; a < D; ++a) face[f].normal[a] = at[kFaces + f * (D + 1) + a][i];
        face[f].offset = at[kFaces + f * (D + 1) + D][i];
        const T safe =
            cpab_safe_time_before<false, T, D>(face[f], u, velocity, acceleration, jerk, slack, piece);
        const bool first = safe < time;
        time = first ? safe : time;
        number = first ? Count(f + 1) : number;
        CINNABAR_UNROLL
        for (int a = 0; a < D; ++a) nearest.normal[a] = first ? face[f].normal[a] : nearest.normal[a];
        nearest.offset = first ? face[f].offset : nearest.offset;
      }
      cpab_shift<CpabLimits<T>::kTerms, T, D>(map, velocity, acceleration, time, u);
      CINNABAR_UNROLL
      for (int a = 0; a < D; ++a) at[kU + a][i] = u[a];
      at[kElapsed][i] += time;
      at[kPiece][i] = piece - time;
      const Count rounds = rounds_[i] + 1;
      rounds_[i] = rounds;
      const Count tired = rounds < kCpabPatience ? kNone : kStuck;
      const Count on_face = nearest(u) > -CpabLimits<T>::kTolerance / 2 ? tired : number;
      event_[i] = number == 0 ? kPieceOver : on_face;
    }
  }

  /// False if the point is done with.
  template <class Moved, class Alone>
  bool attend_to(int slot, T* ends, const Moved& moved, const Alone& alone) {
    CpabMove<T, D> move;
    for (int a = 0; a < D; ++a) move.u[a] = rows_.at[kStart + a][slot];
    move.time = rows_.at[kElapsed][slot];
    move.cell = place_[slot].cell(field_.grid);
    move.crossing = 0;
    const Count event = event_[slot];
    if (event == kStuck || (event != kPieceOver && !go_through(slot, static_cast<int>(event) - 1, move))) {
      alone(point_[slot]);
      return false;
    }
    moved(point_[slot], move);
    if (!(rows_.at[kRemaining][slot] > T(0))) {
      arrive(slot, ends + point_[slot] * D);
      return false;
    }
    if (move.crossing != 0) load_cell(slot);
    begin_move(slot);
    return true;
  }

  /// False where the domain ends there, or after too many exits.
  bool go_through(int slot, int face, CpabMove<T, D>& move) {
    CpabPlace<D>& place = place_[slot];
    const CpabPlace<D> before = place;
    T u[D];
    for (int a = 0; a < D; ++a) u[a] = rows_.at[kU + a][slot];
    if (++exits_[slot] >= kCpabMostExits<D> || !cpab_cross<T, D>(field_.grid, face, place, u)) return false;
    std::int32_t change[D];
    for (int a = 0; a < D; ++a) {
      change[a] = place.box[a] - before.box[a];
      rows_.at[kU + a][slot] = u[a];
    }
    move.crossing = cpab_pack_crossing<T, D>(faces_(before, face).normal, change);
    rows_.at[kRemaining][slot] += rows_.at[kPiece][slot];
    return true;
  }

  void arrive(int slot, T* end) const {
    for (int a = 0; a < D; ++a) {
      end[a] = (rows_.at[kU + a][slot] + static_cast<T>(place_[slot].box[a])) /
               static_cast<T>(field_.grid.boxes[a]);
    }
  }
  void take_over(int from, int slot) {
    rows_.move(from, slot);
    place_[slot] = place_[from];
    point_[slot] = point_[from];
    exits_[slot] = exits_[from];
    rounds_[slot] = rounds_[from];
  }

  const CpabField<T, D>& field_;
  const CpabFaceTable<T, D>& faces_;
  CpabRows<T, kRows> rows_;
  alignas(64) Count rounds_[kCpabBlock];
  alignas(64) Count event_[kCpabBlock];
  CpabPlace<D> place_[kCpabBlock];
  int point_[kCpabBlock];
  int exits_[kCpabBlock];
  int used_ = 0;  // slots
  const T* points_ = nullptr;
  int count_ = 0;
  int next_ = 0;  // point
};

}  // namespace cinnabar::cpu
