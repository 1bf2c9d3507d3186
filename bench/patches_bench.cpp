#include "kernels/patches.hpp"

#include "autograd/layout.hpp"
#include "bench/bench.hpp"
#include "data/patch_grid.hpp"
#include "tests/tensors.hpp"

// All patches of 15^3 at distance 14 of a momentum (3 channels) of extent^3 voxels, cut out and put back.
// Bytes: patches and volume once each.

namespace cinnabar {
namespace {

struct Setup {
  Tensor starts, volume, patches;
  bench::Work work() const { return {static_cast<double>(volume.bytes() + patches.bytes()), 0}; }
};

Setup set_up(benchmark::State& state, Device device) {
  const std::int64_t n = state.range(0);
  const Tensor starts = grid_starts({n, n, n}, {});
  return {starts.to(device), testing::random_tensor({1, 3, n, n, n}, 1).to(device),
          testing::random_tensor({starts.shape(0), 3, 15, 15, 15}, 2).to(device)};
}

void patches_gather(benchmark::State& state, Device device) {
  Setup s = set_up(state, device);
  bench::measure(state, device, s.work(), [&] { patches_on(device).gather(s.volume, s.starts, s.patches); });
}
CINNABAR_BENCH(patches_gather, 64, 128, 256);

/// One slice of the volume per patch, copied into its place.
void slices(benchmark::State& state, Device device) {
  Setup s = set_up(state, device);
  const std::vector<std::int32_t> rows = s.starts.to_vector<std::int32_t>();
  const Variable volume(s.volume);
  bench::measure(state, device, s.work(), [&] {
    for (std::int64_t n = 0; n < s.patches.shape(0); ++n) {
      const std::int32_t* start = rows.data() + 4 * n;
      const auto along = [&](int axis) { return Slice{start[axis], start[axis] + 15, 1}; };
      s.patches.rows(n, 1).copy_from(slice(volume, {{}, {}, along(1), along(2), along(3)}).value());
    }
  });
}
CINNABAR_RIVAL(patches_gather, slices, 64, 128);

void patches_average(benchmark::State& state, Device device) {
  Setup s = set_up(state, device);
  Tensor counts = Tensor::empty(s.volume.shape().with(1, 1), DType::f32, device);
  bench::measure(state, device, s.work(), [&] {
    const Patches& table = patches_on(device);
    s.volume.fill(0.0);
    counts.fill(0.0);
    table.scatter(s.patches, s.starts, s.volume);
    table.count(s.starts, {15, 15, 15}, counts);
    table.average(counts, s.volume);
  });
}
CINNABAR_BENCH(patches_average, 64, 128, 256);

/// One patch after the other, added voxel by voxel on one thread.
void plain_loop(benchmark::State& state, Device device) {
  if (!device.is_cpu()) return state.SkipWithError("runs on the CPU");
  Setup s = set_up(state, device);
  const std::int64_t n = state.range(0), voxels = n * n * n;
  std::vector<float> counts(static_cast<std::size_t>(voxels));
  bench::measure(state, device, s.work(), [&] {
    s.volume.fill(0.0);
    counts.assign(counts.size(), 0.0f);
    float* volume = s.volume.data<float>();
    const float* value = s.patches.data<float>();
    for (std::int64_t patch = 0; patch < s.patches.shape(0); ++patch) {
      const std::int32_t* start = s.starts.data<std::int32_t>() + 4 * patch;
      for (int c = 0; c < 3; ++c) {
        for (int voxel = 0; voxel < 15 * 15 * 15; ++voxel) {
          const std::int64_t at =
              ((start[1] + voxel / 225) * n + start[2] + voxel / 15 % 15) * n + start[3] + voxel % 15;
          volume[c * voxels + at] += *value++;
          if (c == 0) counts[static_cast<std::size_t>(at)] += 1.0f;
        }
      }
    }
    for (std::int64_t i = 0; i < 3 * voxels; ++i) {
      const float count = counts[static_cast<std::size_t>(i % voxels)];
      volume[i] = count > 0.0f ? volume[i] / count : 0.0f;
    }
  });
}
CINNABAR_RIVAL(patches_average, plain_loop, 64, 128);

}  // namespace
}  // namespace cinnabar
