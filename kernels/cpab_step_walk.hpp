#pragma once

// The stepping scheme in 1-D to 3-D, for CPU and CUDA: a lookup of the cell, then its tabulated exponential
// over one step, whether or not the point leaves the cell on the way.

#include "kernels/cpab_record.hpp"

namespace cinnabar {

template <class T, int D>
class CpabStepWalk {
 public:
  static constexpr bool kTabulated = true;

  struct State {
    T s[D];  ///< in cell units
    std::int32_t steps_left;
  };
  State state;

  CINNABAR_HD explicit CpabStepWalk(int steps) : steps_(steps) {}

  template <class Field>
  CINNABAR_HD void start(const Field& field, const T* point) {
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) state.s[a] = point[a] * static_cast<T>(field.grid.boxes[a]);
    state.steps_left = steps_;
  }

  CINNABAR_HD void finish(const CpabGrid& grid, T* point) const {
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) point[a] = state.s[a] / static_cast<T>(grid.boxes[a]);
  }

  CINNABAR_HD void resume(const State& saved) { state = saved; }
  CINNABAR_HD bool going() const { return state.steps_left > 0; }

  template <class Field>
  CINNABAR_HD bool advance(const Field& field, CpabMove<T, D>& move) {
    --state.steps_left;
    const CpabPlace<D> place = cpab_locate<T, D>(field.grid, state.s, move.u);
    move.cell = place.cell(field.grid);
    if (move.cell != loaded_) {
      field.load(move.cell, record_);
      loaded_ = move.cell;
    }
    move.time = record_[CpabRecord<D>::kTime];
    move.crossing = 0;
    T delta[D];
    cpab_apply<T, D>(record_, move.u, delta);
    CINNABAR_UNROLL
    for (int a = 0; a < D; ++a) state.s[a] += delta[a];
    return true;
  }

 private:
  int steps_;
  T record_[CpabRecord<D>::kSize];
  std::int32_t loaded_ = -1;
};

}  // namespace cinnabar
