#include "kernels/lncc.hpp"

#include <algorithm>

#include "bench/bench.hpp"
#include "bench/loss_setup.hpp"

// Local cross correlation of two cubes of extent^3 voxels, windows of 9^3. Bytes: both images once, and one
// result with gradients; the work is in the window sums, so the share of the copy ceiling stays low.

namespace cinnabar {
namespace {

bench::LossSetup set_up(std::int64_t n, Device device) {
  return bench::loss_setup(n, Tensor::full({2}, 1.0, DType::f64, device));
}

void lncc_forward(benchmark::State& state, Device device) {
  bench::LossSetup s = set_up(state.range(0), device);
  bench::measure(state, device, {2.0 * s.bytes(), 0},
                 [&] { lncc_on(device).forward(s.a, s.b, {}, {}, s.sums, s.loss); });
}
CINNABAR_BENCH(lncc_forward, 64, 128);

/// Every window added up afresh, on one thread.
void plain_windows(benchmark::State& state, Device device) {
  if (!device.is_cpu()) return state.SkipWithError("runs on the CPU");
  const bench::LossSetup s = set_up(state.range(0), device);
  const std::int64_t n = state.range(0);
  const float* a = s.a.data<float>();
  const float* b = s.b.data<float>();
  bench::measure(state, device, {2.0 * s.bytes(), 0}, [&] {
    double total = 0.0;
    for (std::int64_t centre = 0; centre < n * n * n; ++centre) {
      const auto low = [&](std::int64_t i) { return std::max<std::int64_t>(i - 4, 0); };
      const auto high = [&](std::int64_t i) { return std::min<std::int64_t>(i + 4, n - 1); };
      const std::int64_t x = centre % n, y = centre / n % n, z = centre / n / n;
      double count = 0, sa = 0, sb = 0, saa = 0, sbb = 0, sab = 0;
      for (std::int64_t k = low(z); k <= high(z); ++k) {
        for (std::int64_t j = low(y); j <= high(y); ++j) {
          for (std::int64_t i = (k * n + j) * n + low(x); i <= (k * n + j) * n + high(x); ++i) {
            count += 1;
            sa += a[i];
            sb += b[i];
            saa += static_cast<double>(a[i]) * a[i];
            sbb += static_cast<double>(b[i]) * b[i];
            sab += static_cast<double>(a[i]) * b[i];
          }
        }
      }
      const double ma = sa / count, mb = sb / count;
      total +=
          local_correlation(count, sab / count - ma * mb, saa / count - ma * ma, sbb / count - mb * mb, 1e-8)
              .value;
    }
    benchmark::DoNotOptimize(total);
  });
}
CINNABAR_RIVAL(lncc_forward, plain_windows, 64);

void lncc_backward(benchmark::State& state, Device device) {
  bench::LossSetup s = set_up(state.range(0), device);
  bench::measure(state, device, {3.0 * s.bytes(), 0},
                 [&] { lncc_on(device).backward(s.loss, s.a, s.b, {}, {}, s.sums, s.grad, s.none); });
}
CINNABAR_BENCH(lncc_backward, 64, 128);

}  // namespace
}  // namespace cinnabar
