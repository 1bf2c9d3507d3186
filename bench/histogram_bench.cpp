#include "kernels/histogram.hpp"

#include "bench/bench.hpp"
#include "tests/tensors.hpp"

// Intensity histograms of cubes of extent^3 voxels, all of them foreground. Bytes: every voxel read once, and
// written once where there is a result of that size.

namespace cinnabar {
namespace {

Tensor image_of(std::int64_t n, Device device) {
  return testing::random_tensor({1, 1, n, n, n}, 1, 0.01, 1.0).to(device);
}

void histogram_count(benchmark::State& state, Device device) {
  const Tensor image = image_of(state.range(0), device);
  Tensor counts = Tensor::zeros({256}, DType::i64, device);
  bench::measure(state, device, {static_cast<double>(image.bytes()), 0},
                 [&] { histogram_on(device).count(image, {}, 0.0, 1.0, counts); });
}
CINNABAR_BENCH(histogram_count, 64, 128, 256);

/// What a sort of the values costs instead.
void sort(benchmark::State& state, Device device) {
  const Tensor image = image_of(state.range(0), device);
  bench::measure(state, device, {static_cast<double>(image.bytes()), 0},
                 [&] { histogram_on(device).sort(image, {}); });
}
CINNABAR_RIVAL(histogram_count, sort, 64, 128);

void histogram_map(benchmark::State& state, Device device) {
  const Tensor image = image_of(state.range(0), device);
  Tensor mapped = Tensor::empty_like(image);
  std::vector<double> knots;
  for (int k = 0; k < 256; ++k) knots.push_back(k / 255.0);
  const Tensor from = Tensor::from(knots, {256});
  bench::measure(state, device, {2.0 * static_cast<double>(image.bytes()), 0},
                 [&] { histogram_on(device).map(image, {}, from, from, mapped); });
}
CINNABAR_BENCH(histogram_map, 64, 128, 256);

}  // namespace
}  // namespace cinnabar
