#pragma once

// The exact flow in 1-D, for CPU and CUDA. In a cell du/dt = a u + g, so u(t) = u + v t p(a t) with v the
// velocity at u and p(z) = (e^z - 1) / z, and a boundary at distance b is reached after
// t = (b / v) q(a b / v), q(z) = log(1 + z) / z, if 1 + z, the ratio of the velocities there and here, is
// positive.

#include "kernels/cpab_record.hpp"

namespace cinnabar {

/// (e^z - 1) / z.
template <class T>
CINNABAR_HD T cpab_expm1_ratio(T z) {
  return std::abs(z) < T(1e-30) ? T(1) : std::expm1(z) / z;
}

/// Its derivative, (e^z - p(z)) / z, by its series sum k z^(k-1) / (k+1)! near zero.
template <class T>
CINNABAR_HD T cpab_expm1_ratio_slope(T z) {
  if (std::abs(z) > T(1)) return (std::exp(z) - cpab_expm1_ratio(z)) / z;
  T sum = T(0);
  for (int k = 18; k >= 1; --k) sum = sum * z / static_cast<T>(k + 2) + static_cast<T>(k);
  return sum / T(2);
}

template <class T>
class CpabLineWalk {
 public:
  static constexpr bool kTabulated = false;

  struct State {
    CpabPlace<1> place;
    T u;
    T remaining;
    std::int32_t exits;
  };
  State state;

  template <class Field>
  CINNABAR_HD void start(const Field& field, const T* point) {
    const T s = *point * static_cast<T>(field.grid.boxes[0]);
    state.place = cpab_locate<T, 1>(field.grid, &s, &state.u);
    state.remaining = T(1);
    state.exits = 0;
  }

  CINNABAR_HD void finish(const CpabGrid& grid, T* point) const {
    *point = (state.u + static_cast<T>(state.place.box[0])) / static_cast<T>(grid.boxes[0]);
  }

  CINNABAR_HD void resume(const State& saved) { state = saved; }
  CINNABAR_HD bool going() const { return state.remaining > T(0); }

  template <class Field>
  CINNABAR_HD bool advance(const Field& field, CpabMove<T, 1>& move) {
    move.cell = state.place.cell(field.grid);
    move.u[0] = state.u;
    move.crossing = 0;
    const T* map = field.map(move.cell);
    T velocity;
    cpab_apply<T, 1>(map, &state.u, &velocity);
    const int face = face_ahead(velocity);
    const T border = face == 1 || (face == 2 && state.place.side[0] > 0) ? T(1) : T(0);
    move.time = state.remaining;
    const T ratio = map[0] * (border - state.u) / velocity;
    bool leaves = false;
    if (face >= 0 && ratio > T(-1) && state.exits < kCpabMostExits<1>) {
      const T needed =
          (border - state.u) / velocity * (std::abs(ratio) < T(1e-30) ? T(1) : std::log1p(ratio) / ratio);
      if (needed < state.remaining) {
        move.time = needed > T(0) ? needed : T(0);
        leaves = true;
      }
    }
    if (!leaves) {
      state.u += velocity * move.time * cpab_expm1_ratio(map[0] * move.time);
      state.remaining = T(0);
      return true;
    }
    state.remaining -= move.time;
    state.u = border;
    move.crossing = cpab_go_through<T, 1>(field.grid, face, state.place, &state.u);
    ++state.exits;
    return true;
  }

 private:
  /// The face that a velocity points at, -1 if none.
  CINNABAR_HD int face_ahead(T velocity) const {
    const int side = state.place.side[0];
    if (side != 0) return velocity * static_cast<T>(side) < T(0) ? 2 : -1;
    return velocity > T(0) ? 1 : velocity < T(0) ? 0 : -1;
  }
};

}  // namespace cinnabar
