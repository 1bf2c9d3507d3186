#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/field_shape.hpp"
#include "kernels/parallel.hpp"
#include "kernels/stencil.hpp"

namespace cinnabar::cpu {

inline constexpr std::int64_t kStencilGrain = 32;  // rows a task

/// Calls run(stencil, voxel offsets begin, end) for the runs of equal stencils in a row of one channel: its
/// first voxel, the middle, its last voxel. One call site, so that the run is inlined and the middle
/// vectorises.
template <class T, class Run>
void for_each_stencil_run(const FieldShape& shape, std::int64_t row_of_channel, const Run& run) {
  Stencil<T> near;
  near.set_axis(1, row_of_channel % shape.h, shape.h, shape.w);
  near.set_axis(2, row_of_channel / shape.h, shape.d, shape.w * shape.h);
  const std::int64_t ends[4] = {0, 1, std::max<std::int64_t>(shape.w - 1, 1), shape.w};
  CINNABAR_UNROLL
  for (int k = 0; k < 3; ++k) {
    near.set_axis(0, ends[k], shape.w, 1);
    const Stencil<T> fixed = near;
    run(fixed, row_of_channel * shape.w + ends[k], row_of_channel * shape.w + ends[k + 1]);
  }
}

/// Calls body(stencil, batch item, voxel offset in it) for every voxel.
template <class T, class Body>
void for_each_stencil(const FieldShape& shape, const Body& body) {
  parallel_for(shape.rows(), kStencilGrain, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) {
      const std::int64_t n = row / (shape.d * shape.h);
      for_each_stencil_run<T>(shape, row % (shape.d * shape.h),
                              [&](const Stencil<T>& near, std::int64_t begin, std::int64_t end) {
#pragma omp simd
                                for (std::int64_t at = begin; at < end; ++at) body(near, n, at);
                              });
    }
  });
}

}  // namespace cinnabar::cpu
