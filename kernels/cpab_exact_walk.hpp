#pragma once

// The exact flow in 2-D and 3-D, for CPU and CUDA: whole steps while the path certainly stays inside the
// cell, else a Taylor series and the first root of its faces' polynomials.

#include "kernels/cpab_record.hpp"

namespace cinnabar {

/// Terms of u(t) - u = sum_k term[k] theta^(k+1) for t = theta * time, theta in [0, 1].
template <class T, int D>
CINNABAR_HD void cpab_series(const T* map, const T* u, T time, T (&term)[CpabLimits<T>::kTerms][D]) {
  T scaled[D][D];
  cpab_apply<T, D>(map, u, term[0]);
  CINNABAR_UNROLL
  for (int r = 0; r < D; ++r) {
    term[0][r] *= time;
    CINNABAR_UNROLL
    for (int c = 0; c < D; ++c) scaled[r][c] = map[r * (D + 1) + c] * time;
  }
  for (int k = 1; k < CpabLimits<T>::kTerms; ++k) {
    CINNABAR_UNROLL
    for (int r = 0; r < D; ++r) {
      T sum = scaled[r][0] * term[k - 1][0];
      CINNABAR_UNROLL
      for (int c = 1; c < D; ++c) sum = cpab_multiply_add(scaled[r][c], term[k - 1][c], sum);
      term[k][r] = sum * (T(1) / static_cast<T>(k + 1));
    }
  }
}

/// First theta in [0, limit) at which height + sum_k slope[k] theta^(k+1) falls below -tolerance, or `limit`.
/// Each advance is as far as the smallest possible second derivative lets the polynomial stay above, so no
/// exit is passed by; it converges quadratically onto a simple root.
template <class T>
CINNABAR_HD T cpab_first_exit(T height, const T (&slope)[CpabLimits<T>::kTerms], T limit) {
  constexpr int kTerms = CpabLimits<T>::kTerms;
  constexpr T kTolerance = CpabLimits<T>::kTolerance;
  T base = height + kTolerance;  // exit where this reaches zero
  if (base <= T(0)) {
    if (slope[0] < T(0)) return T(0);
    base = kTolerance;  // outside already but on its way in: it may not go further out
  }
  T bend = T(-2) * slope[1];  // the second derivative is -bend or more
  for (int k = 2; k < kTerms; ++k)
    bend = cpab_multiply_add(static_cast<T>((k + 1) * k), std::abs(slope[k]), bend);
  const T start = base;
  T theta = T(0);
  T fall = slope[0];
  for (int round = 0; round < 64; ++round) {
    const bool rises = fall >= T(0) && bend <= T(0);
    const T root = std::sqrt(cpab_multiply_add(fall, fall, T(2) * bend * base));
    const T advance = fall < T(0) ? T(2) * base / (root - fall) : (root + fall) / bend;
    theta += advance;  // NaN where it turns round before the face
    if (rises || !(theta < limit)) return limit;
    T value = T(0);
    fall = T(0);
    for (int k = kTerms - 1; k >= 0; --k) {
      fall = cpab_multiply_add(fall, theta, value);
      value = cpab_multiply_add(value, theta, slope[k]);
    }
    fall = cpab_multiply_add(fall, theta, value);
    base = cpab_multiply_add(value, theta, start);
    if (base <= kTolerance / 2) return theta;
  }
  return theta;
}

/// The exact flow in 2-D and 3-D.
template <class T, int D>
class CpabExactWalk {
 public:
  static constexpr bool kClosedForm = false;

  struct State {
    CpabPlace<D> place;
    T u[D];
    T remaining;
    std::int32_t exits;
  };
  State state;

  template <class Field>
  CINNABAR_HD void start(const Field& field, const T* point) {
    T s[D];
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) s[a] = point[a] * static_cast<T>(field.grid.boxes[a]);
    state.place = cpab_locate<T, D>(field.grid, s, state.u);
    state.remaining = T(1);
    state.exits = 0;
  }

  CINNABAR_HD void finish(const CpabGrid& grid, T* point) const {
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) {
      point[a] = (state.u[a] + static_cast<T>(state.place.box[a])) / static_cast<T>(grid.boxes[a]);
    }
  }

  /// Makes the next move; false at the end of the time.
  template <class Field>
  CINNABAR_HD bool next(const Field& field, CpabMove<T, D>& move) {
    if (!(state.remaining > T(0))) return false;
    load(field);
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) move.u[a] = state.u[a];
    move.cell = loaded_;
    move.crossing = 0;
    const T whole = record_[CpabRecord<D>::kTime];
    const bool stops = state.exits < kCpabMostExits<D>;
    T delta[D];
    cpab_apply<T, D>(record_, state.u, delta);
    move.whole = state.remaining >= whole ? 1 : 0;
    if (move.whole == 0 || (stops && comes_near(delta))) {
      part(field, stops, move);
    }
    if (move.whole != 0) {
      move.time = whole;
      state.remaining -= whole;
      CINNABAR_UNROLL
      for (int a = 0; a < D; ++a) state.u[a] += delta[a];
    }
    if (!stops) look_up(field.grid);
    return true;
  }

 private:
  template <class Field>
  CINNABAR_HD void load(const Field& field) {
    const std::int32_t cell = state.place.cell(field.grid);
    if (cell == loaded_) return;
    field.load(cell, record_);
    loaded_ = cell;
  }

  CINNABAR_HD void look_up(const CpabGrid& grid) {
    T s[D];
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) s[a] = state.u[a] + static_cast<T>(state.place.box[a]);
    state.place = cpab_locate<T, D>(grid, s, state.u);
  }

  /// Calls test(face number, face) for the faces that the point could leave through.
  template <class Test>
  CINNABAR_HD void for_exits(const Test& test) const {
    const bool inside = state.place.inside();
    const int exits = inside ? static_cast<int>(record_[CpabRecord<D>::kExits]) : (2 << D) - 1;
    CINNABAR_UNROLL
    for (int face = 0; face <= D; ++face) {
      if (((exits >> face) & 1) != 0) test(face, cpab_face_at<T, D>(state.place, face));
    }
    if (inside) return;
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) {
      if (state.place.side[a] != 0) test(D + 1 + a, cpab_face_at<T, D>(state.place, D + 1 + a));
    }
  }

  /// Whether a whole step by `delta` could touch a face. With b the largest distance between path and chord
  /// (cpab_bend), a path from height h to h' stays above h (1 - s) + h' s - 4 b s (1 - s), which is not
  /// negative where sqrt(h) + sqrt(h') >= 2 sqrt(b); the test here asks for a little more.
  CINNABAR_HD bool comes_near(const T* delta) const {
    T reach = T(0);
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) reach = std::abs(delta[a]) > reach ? std::abs(delta[a]) : reach;
    const T packed = record_[CpabRecord<D>::kExits];
    const T least = T(4) * (packed - static_cast<T>(static_cast<int>(packed))) * reach;
    bool near = false;
    for_exits([&](int, const CpabFace<T, D>& face) {
      const T here = face(state.u);
      const T change = face.along(delta);
      const T lowest = change < T(0) ? here + change : here;
      near = near || lowest < T(0) || T(4) * lowest + std::abs(change) < face.size() * least;
    });
    return near;
  }

  /// The move up to the first exit, or to the end of the time or of a whole step (then move.whole stays).
  template <class Field>
  CINNABAR_HD void part(const Field& field, bool stops, CpabMove<T, D>& move) {
    const T whole = record_[CpabRecord<D>::kTime];
    const T time = move.whole != 0 ? whole : state.remaining;
    T term[CpabLimits<T>::kTerms][D];
    cpab_series<T, D>(field.map(loaded_), state.u, time, term);
    T theta = T(1);
    int exit = -1;
    if (stops) find_exit(term, theta, exit);
    if (exit < 0 && move.whole != 0) return;
    T shift[D] = {};
    for (int k = CpabLimits<T>::kTerms - 1; k >= 0; --k) {
      CINNABAR_UNROLL
      for (int a = 0; a < D; ++a) shift[a] = cpab_multiply_add(shift[a], theta, term[k][a]);
    }
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) state.u[a] = cpab_multiply_add(shift[a], theta, state.u[a]);
    move.whole = 0;
    move.time = theta * time;
    state.remaining = exit < 0 ? T(0) : state.remaining - move.time;
    if (exit < 0) return;
    move.crossing = cpab_pack_normal<T, D>(cpab_face_at<T, D>(state.place, exit));
    cpab_cross<T, D>(field.grid, exit, 4 * CpabLimits<T>::kTolerance, state.place, state.u);
    ++state.exits;
  }

  CINNABAR_HD void find_exit(const T (&term)[CpabLimits<T>::kTerms][D], T& theta, int& exit) const {
    T reach = T(0);
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) reach = std::abs(term[0][a]) > reach ? std::abs(term[0][a]) : reach;
    for_exits([&](int number, const CpabFace<T, D>& face) {
      const T height = face(state.u);
      T slope[CpabLimits<T>::kTerms];
      slope[0] = face.along(term[0]);
      // The terms beyond the first add up to at most (e^(1/2) - 3/2) / (1/2) < 0.3 of the first.
      const T lowest = slope[0] < T(0) ? height + slope[0] : height;
      if (lowest >= T(0.3) * face.size() * reach) return;
      CINNABAR_UNROLL
      for (int k = 1; k < CpabLimits<T>::kTerms; ++k) slope[k] = face.along(term[k]);
      const T found = cpab_first_exit<T>(height, slope, theta);
      if (found < theta) {
        theta = found;
        exit = number;
      }
    });
  }

  T record_[CpabRecord<D>::kSize];
  std::int32_t loaded_ = -1;
};

}  // namespace cinnabar
