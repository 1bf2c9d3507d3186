#pragma once

// The exact flow in 2-D and 3-D, for CPU and CUDA: Taylor series of the path, each as far as the path
// certainly stays above all faces of its cell, or onto the face it leaves through.

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
  CINNABAR_UNROLL
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

/// target = L v, L the linear part of a map.
template <class T, int D>
CINNABAR_HD void cpab_apply_linear(const T* map, const T* v, T* target) {
  CINNABAR_UNROLL
  for (int r = 0; r < D; ++r) {
    target[r] = map[r * (D + 1)] * v[0];
    CINNABAR_UNROLL
    for (int c = 1; c < D; ++c) target[r] = cpab_multiply_add(map[r * (D + 1) + c], v[c], target[r]);
  }
}

/// The move over `time` of a point with velocity v and acceleration a = L v, by an even number of terms: the
/// even and the odd terms of the series in powers of L^2 are two chains of half the length.
template <int kTerms, class T, int D>
CINNABAR_HD void cpab_shift(const T* map, const T* v, const T* a, T time, T* u) {
  T scaled[D * D];  // (time L)^2
  T even[D];
  T odd[D];
  CINNABAR_UNROLL
  for (int c = 0; c < D; ++c) {
    T column[D];
    T product[D];
    CINNABAR_UNROLL
    for (int r = 0; r < D; ++r) column[r] = map[r * (D + 1) + c] * (time * time);
    cpab_apply_linear<T, D>(map, column, product);
    CINNABAR_UNROLL
    for (int r = 0; r < D; ++r) scaled[r * D + c] = product[r];
  }
  CINNABAR_UNROLL
  for (int r = 0; r < D; ++r) {
    even[r] = v[r];
    odd[r] = a[r];
  }
  CINNABAR_UNROLL
  for (int k = kTerms - 2; k > 0; k -= 2) {
    T next[2][D];
    CINNABAR_UNROLL
    for (int r = 0; r < D; ++r) {
      T sum[2] = {scaled[r * D] * even[0], scaled[r * D] * odd[0]};
      CINNABAR_UNROLL
      for (int c = 1; c < D; ++c) {
        sum[0] = cpab_multiply_add(scaled[r * D + c], even[c], sum[0]);
        sum[1] = cpab_multiply_add(scaled[r * D + c], odd[c], sum[1]);
      }
      next[0][r] = cpab_multiply_add(sum[0], T(1) / static_cast<T>(k * (k + 1)), v[r]);
      next[1][r] = cpab_multiply_add(sum[1], T(1) / static_cast<T>((k + 1) * (k + 2)), a[r]);
    }
    CINNABAR_UNROLL
    for (int r = 0; r < D; ++r) {
      even[r] = next[0][r];
      odd[r] = next[1][r];
    }
  }
  CINNABAR_UNROLL
  for (int r = 0; r < D; ++r)
    u[r] = cpab_multiply_add(cpab_multiply_add(odd[r], time * T(0.5), even[r]), time, u[r]);
}

#if defined(__CUDA_ARCH__)
constexpr bool kCpabSkips = false;  // some lane of a warp needs what others could skip
#else
constexpr bool kCpabSkips = true;
#endif

/// A time in [0, limit] up to which a height over a face certainly does not fall below zero: the first root
/// of height + fall t + (bend / 2) t^2, or `limit`, with height >= 0 and `bend` a lower bound of the second
/// derivative up to `limit`. Selects only where kSkips is false, so that a loop over points vectorises.
template <bool kSkips, class T>
CINNABAR_HD T cpab_safe_time(T height, T fall, T bend, T limit) {
  const bool falls = fall < T(0);
  if (kSkips) {
    const T slope = falls ? fall : T(0);
    const T curve = bend < T(0) ? bend : T(0);
    if (cpab_multiply_add(cpab_multiply_add(curve, limit * T(0.5), slope), limit, height) > T(0))
      return limit;
  }
  const T root = cpab_rough_root(cpab_multiply_add(fall, fall, T(-2) * bend * height));  // NaN: turns round
  const T time = cpab_rough_quotient(falls ? T(2) * height : root + fall, falls ? root - fall : -bend);
  return time < limit && (falls || bend < T(0)) ? time : limit;
}

/// By how much a height over a face can fall short of its Taylor polynomial, per face size: the part of its
/// third derivative that may change within `limit`. With n = |L| and a the acceleration, that derivative
/// changes within t by at most size n t e^(n t) |L a|; integrated, that counts a quarter.
template <class T, int D>
CINNABAR_HD T cpab_slack(T norm, const T* jerk, T limit) {
  T largest = T(0);
  CINNABAR_UNROLL
  for (int a = 0; a < D; ++a) {
    const T size = std::abs(jerk[a]);
    largest = size > largest ? size : largest;
  }
  const T x = norm * limit;
  return x * (T(1) + x + x * x) * largest * T(0.25);
}

/// A time up to which a point in front of a face certainly stays there, at most `limit`: its height stays
/// above the parabola whose second derivative is a third of the lowest third derivative, times the time,
/// below the present one.
template <bool kSkips, class T, int D>
CINNABAR_HD T cpab_safe_time_before(const CpabFace<T, D>& face, const T* u, const T* velocity,
                                    const T* acceleration, const T* jerk, T slack, T limit) {
  const T fall = face.along(velocity);
  T height = face(u) + CpabLimits<T>::kTolerance;
  // Outside already it leaves at once, or it is on its way in and may not go further out.
  height = height <= T(0) ? (fall < T(0) ? T(0) : CpabLimits<T>::kTolerance) : height;
  const T change = face.along(jerk) - face.size() * slack;
  const T bend = face.along(acceleration) + (change < T(0) ? change * (limit * (T(1) / T(3))) : T(0));
  return cpab_safe_time<kSkips>(height, fall, bend, limit);
}

/// How long the pieces of a cell's moves are: a series holds over norm * time <= 1.
template <class T>
CINNABAR_HD T cpab_longest_piece(T norm) {
  constexpr T kShortest = static_cast<T>(kCpabShortest);
  const T longest = cpab_rough_quotient(T(1), norm);
  return longest > kShortest ? (longest < T(1) ? longest : T(1)) : kShortest;
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

/// Rounds after which a move that has not reached an exit is no longer left to safe times.
constexpr int kCpabPatience = 8;

template <class T>
struct CpabExit {
  T time;
  int face;  ///< -1: none up to that time
};

template <class T, int D>
struct CpabMap {
  T map[D * (D + 1)];
};

/// The first exit of a point by all terms of its series over `time`; `exits` of the cell's record. For points
/// beside the domain, and for paths that hardly move away from a face, along which safe times are short.
template <class T, int D>
CINNABAR_HD_APART CpabExit<T> cpab_find_exit(CpabMap<T, D> cell, CpabPlace<D> place, int exits,
                                             CpabPoint<T, D> point, T time) {
  T term[CpabLimits<T>::kTerms][D];
  cpab_series<T, D>(cell.map, point.u, time, term);
  CpabExit<T> exit{T(1), -1};
  const bool inside = place.inside();
  for (int number = 0; number < kCpabFaces<D>; ++number) {
    bool present = number <= D && (!inside || (exits >> number & 1) != 0);
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) present = present || (number == D + 1 + a && place.side[a] != 0);
    if (!present) continue;
    const CpabFace<T, D> face = cpab_face_at<T, D>(place, number);
    T slope[CpabLimits<T>::kTerms];
    for (int k = 0; k < CpabLimits<T>::kTerms; ++k) slope[k] = face.along(term[k]);
    const T found = cpab_first_exit<T>(face(point.u), slope, exit.time);
    if (found < exit.time) exit = {found, number};
  }
  exit.time *= time;
  return exit;
}

/// The exact flow in 2-D and 3-D.
template <class T, int D>
class CpabExactWalk {
 public:
  static constexpr bool kTabulated = false;

  struct State {
    CpabPlace<D> place;
    T u[D];
    T remaining;  ///< after the piece that the walk is in
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
    rounds_ = kNewCell;
  }
  /// Goes on from a state between moves.
  CINNABAR_HD void resume(const State& saved) {
    state = saved;
    rounds_ = kNewCell;
  }

  CINNABAR_HD void finish(const CpabGrid& grid, T* point) const {
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) {
      point[a] = (state.u[a] + static_cast<T>(state.place.box[a])) / static_cast<T>(grid.boxes[a]);
    }
  }

  CINNABAR_HD bool going() const { return state.remaining > T(0) || rounds_ > 0; }

  /// One round of a move: on to the nearest time at which a face might be reached. A move ends on a face, or
  /// with its piece, the time over which one series holds.
  template <class Field>
  CINNABAR_HD bool advance(const Field& field, CpabMove<T, D>& move) {
    if (rounds_ <= 0) begin(field, move);
    T velocity[D];
    T acceleration[D];
    cpab_apply<T, D>(record_, state.u, velocity);
    cpab_apply_linear<T, D>(record_, velocity, acceleration);
    CpabExit<T> exit{piece_, -1};
    const bool stops = state.exits < kCpabMostExits<D>;
    const bool quick = state.place.inside() && rounds_ < kCpabPatience;
    if (stops && quick) {
      find_safe_time(velocity, acceleration, exit);
    } else if (stops) {
      exit = find_exit();
    }
    if (kCpabSkips && record_[CpabRecord<D>::kNorm] * exit.time < T(0.25)) {
      cpab_shift<CpabLimits<T>::kFewTerms, T, D>(record_, velocity, acceleration, exit.time, state.u);
    } else {
      cpab_shift<CpabLimits<T>::kTerms, T, D>(record_, velocity, acceleration, exit.time, state.u);
    }
    move.time += exit.time;
    piece_ -= exit.time;
    ++rounds_;
    if (exit.face >= 0) {
      const T height = face(exit.face)(state.u);
      if (quick && height > -CpabLimits<T>::kTolerance / 2) return false;
      move.crossing = cpab_go_through<T, D>(field.grid, exit.face, state.place, state.u);
      state.remaining += piece_;
      ++state.exits;
    } else if (!stops) {
      look_up(field.grid);
    }
    rounds_ = exit.face < 0 && stops ? 0 : kNewCell;
    return true;
  }

 private:
  static constexpr int kNewCell = -1;

  template <class Field>
  CINNABAR_HD void begin(const Field& field, CpabMove<T, D>& move) {
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) move.u[a] = state.u[a];
    move.cell = state.place.cell(field.grid);
    move.time = T(0);
    move.crossing = 0;
    if (rounds_ == kNewCell) field.load(move.cell, record_);
    rounds_ = 0;
    const T longest = cpab_longest_piece(record_[CpabRecord<D>::kNorm]);
    piece_ = state.remaining < longest ? state.remaining : longest;
    state.remaining -= piece_;
  }

  /// Of a place in the domain.
  CINNABAR_HD CpabFace<T, D> face(int number) const {
    return cpab_face<T, D>(state.place.parity(), state.place.type, number);
  }
  CINNABAR_HD int exits() const { return static_cast<int>(record_[CpabRecord<D>::kExits]); }

  CINNABAR_HD CpabExit<T> find_exit() const {
    CpabMap<T, D> cell;
    CpabPoint<T, D> point;
    CINNABAR_UNROLL
    for (int i = 0; i < D * (D + 1); ++i) cell.map[i] = record_[i];
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) point.u[a] = state.u[a];
    return cpab_find_exit<T, D>(cell, state.place, exits(), point, piece_);
  }

  CINNABAR_HD void look_up(const CpabGrid& grid) {
    T s[D];
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) s[a] = state.u[a] + static_cast<T>(state.place.box[a]);
    state.place = cpab_locate<T, D>(grid, s, state.u);
  }

  /// Shortens exit.time to a time up to which the point certainly stays inside, and names the face that may
  /// be reached then.
  CINNABAR_HD void find_safe_time(const T* velocity, const T* acceleration, CpabExit<T>& exit) const {
    T jerk[D];
    cpab_apply_linear<T, D>(record_, acceleration, jerk);
    const T slack = cpab_slack<T, D>(record_[CpabRecord<D>::kNorm], jerk, piece_);
    const int leaving = exits();
    CINNABAR_UNROLL
    for (int number = 0; number <= D; ++number) {
      const bool leads_out = (leaving >> number & 1) != 0;
      if (kCpabSkips && !leads_out) continue;
      const T safe = cpab_safe_time_before<kCpabSkips, T, D>(face(number), state.u, velocity, acceleration,
                                                             jerk, slack, piece_);
      if (leads_out && safe < exit.time) exit = {safe, number};
    }
  }

  T record_[CpabRecord<D>::kSize];
  T piece_;  // what is left of it
  // Rounds of the present move. Between moves kNewCell where the record is not the place's, else 0.
  std::int32_t rounds_ = kNewCell;
};

}  // namespace cinnabar
