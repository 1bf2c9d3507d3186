#pragma once

#include <omp.h>

namespace cinnabar::testing {

/// What `compute` returns with a given number of OpenMP threads.
template <class Compute>
auto on_threads(int count, const Compute& compute) {
  struct Restored {
    int threads = omp_get_max_threads();
    ~Restored() { omp_set_num_threads(threads); }
  };
  const Restored restored;
  omp_set_num_threads(count);
  return compute();
}

}  // namespace cinnabar::testing
