#include "data/patch_sampler.hpp"

#include "bench/bench.hpp"
#include "tests/tensors.hpp"

// Training batches of 64 patches of 15^3: moving, target and momentum (5 channels) out of two subjects of
// extent^3 voxels. Bytes: every patch read and written once.

namespace cinnabar {
namespace {

VolumeSet volumes_of(std::int64_t n, Device device) {
  const auto image = [&](std::int64_t channels) {
    return testing::random_tensor({2, channels, n, n, n}, static_cast<std::uint64_t>(channels));
  };
  return VolumeSet({Batch{{"moving", image(1)}, {"target", image(1)}, {"momentum", image(3)}}}).to(device);
}

void measure_sampler(benchmark::State& state, Device device, bool replacement) {
  const PatchSampler sampler(volumes_of(state.range(0), device), {.replacement = replacement, .seed = 1});
  std::int64_t batch = 0;
  const double voxels = 64.0 * 15 * 15 * 15;
  bench::measure(state, device, {2 * 5 * sizeof(float) * voxels, 0}, [&] { sampler(batch++); });
}

void patch_sampler(benchmark::State& state, Device device) {
  measure_sampler(state, device, true);
}
CINNABAR_BENCH(patch_sampler, 64, 128);

void patch_sampler_shuffled(benchmark::State& state, Device device) {
  measure_sampler(state, device, false);
}
CINNABAR_BENCH(patch_sampler_shuffled, 64, 128);

}  // namespace
}  // namespace cinnabar
