#include "kernels/warp.hpp"

#include "bench/bench.hpp"
#include "bench/wavy_field.hpp"

// Sampling cubes of extent^3 voxels along a smooth displacement of two voxels. Bytes: displacement, input and
// output once.

namespace cinnabar {
namespace {

bench::Work work_of(std::int64_t n, double fields) {
  return {fields * 12.0 * static_cast<double>(n * n * n)};
}

void warp_forward(benchmark::State& state, Device device) {
  const std::int64_t n = state.range(0);
  const Tensor field = bench::wavy_field(n, 1.0, device), u = bench::wavy_field(n, 2.0, device);
  Tensor output = Tensor::empty_like(field);
  bench::measure(state, device, work_of(n, 3.0),
                 [&] { warp_on(device).forward(field, u, Boundary::zeros, output); });
}
CINNABAR_BENCH(warp_forward, 64, 128, 256);

/// One channel at a time, eight tested corners a sample.
void plain_loop(benchmark::State& state, Device device) {
  if (!device.is_cpu()) return state.SkipWithError("runs on the CPU");
  const std::int64_t n = state.range(0), voxels = n * n * n;
  const Tensor field = bench::wavy_field(n, 1.0, device), u = bench::wavy_field(n, 2.0, device);
  Tensor output = Tensor::empty_like(field);
  bench::measure(state, device, work_of(n, 3.0), [&] {
    for (int c = 0; c < 3; ++c) {
      const float* in = field.data<float>() + c * voxels;
      for (std::int64_t i = 0; i < voxels; ++i) {
        const AxisCell<float> x = displaced_cell(static_cast<std::int32_t>(i % n), u.data<float>()[i]);
        const AxisCell<float> y =
            displaced_cell(static_cast<std::int32_t>(i / n % n), u.data<float>()[voxels + i]);
        const AxisCell<float> z =
            displaced_cell(static_cast<std::int32_t>(i / (n * n)), u.data<float>()[2 * voxels + i]);
        float sum = 0.0f;
        for (int k = 0; k < 8; ++k) {
          const std::int64_t cx = x.cell + (k & 1), cy = y.cell + (k >> 1 & 1), cz = z.cell + (k >> 2);
          if (cx < 0 || cy < 0 || cz < 0 || cx >= n || cy >= n || cz >= n) continue;
          sum += ((k & 1) != 0 ? x.fraction : 1.0f - x.fraction) *
                 ((k & 2) != 0 ? y.fraction : 1.0f - y.fraction) *
                 ((k & 4) != 0 ? z.fraction : 1.0f - z.fraction) * in[(cz * n + cy) * n + cx];
        }
        output.data<float>()[c * voxels + i] = sum;
      }
    }
  });
}
CINNABAR_RIVAL(warp_forward, plain_loop, 64, 128);

void splat(benchmark::State& state, Device device) {
  const std::int64_t n = state.range(0);
  const Tensor field = bench::wavy_field(n, 1.0, device), u = bench::wavy_field(n, 2.0, device);
  Tensor output = Tensor::empty_like(field);
  bench::measure(state, device, work_of(n, 3.0),
                 [&] { warp_on(device).backward_input(field, u, Boundary::zeros, output); });
}
CINNABAR_BENCH(splat, 64, 128, 256);

}  // namespace
}  // namespace cinnabar
