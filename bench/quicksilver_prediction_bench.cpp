// Prediction on whole scans of a brain's size, 3 mm (64) and 1 mm (192), and the shooting behind it, by the
// network that suits the device: 16 features on the CPU, the original's 64 on CUDA. The rival gives the
// network every patch, background too, one at a time: what batches and pruning save. FLOPs are those of the
// convolutions as sums over taps, of foreground patches only.

#include <cmath>

#include "bench/bench.hpp"
#include "models/lddmm_shooting.hpp"
#include "models/quicksilver_prediction.hpp"
#include "registration/registration.hpp"

namespace cinnabar::bench {
namespace {

/// An ellipsoid that fills a fifth of the volume, as a stripped brain does, with texture; zeros around it.
Tensor brain(std::int64_t extent, double phase, Device device) {
  std::vector<float> values;
  const double half = 0.5 * static_cast<double>(extent - 1);
  const auto along = [&](std::int64_t i) { return (static_cast<double>(i) - half) / half; };
  for (std::int64_t z = 0; z < extent; ++z) {
    for (std::int64_t y = 0; y < extent; ++y) {
      for (std::int64_t x = 0; x < extent; ++x) {
        const double a = along(x) / 0.7, b = along(y) / 0.85, c = along(z) / 0.65;
        const double texture = std::sin(9.0 * a + phase) * std::cos(8.0 * b) * std::sin(7.0 * c - phase);
        values.push_back(a * a + b * b + c * c < 1.0 ? static_cast<float>(0.5 + 0.3 * texture) : 0.0f);
      }
    }
  }
  return Tensor::from(values, {1, 1, extent, extent, extent}).to(device);
}

/// 2 x multiply-adds of one patch of 15^3 through all convolutions (models/quicksilver.cpp).
double flops_per_patch(double f) {
  constexpr double kWhole = 15 * 15 * 15, kHalf = 8 * 8 * 8, kQuarter = 5 * 5 * 5;
  const double encoder = 27 * (f + 2 * f * f) * kWhole + 8 * f * f * kHalf +
                         27 * (2 * f * f + 8 * f * f) * kHalf + 8 * 4 * f * f * kQuarter;
  const double decoder = 8 * 16 * f * f * kQuarter + 27 * (32 * f * f + 8 * f * f) * kHalf +
                         27 * 4 * f * f * kHalf + 27 * (8 * f * f + 2 * f) * kWhole;
  return 2 * (2 * encoder + 3 * decoder);
}

struct Scan {
  std::int64_t features;
  Quicksilver network;
  Tensor moving, target;
  std::int64_t patches;

  Scan(std::int64_t extent, Device device)
      : features(device.is_cpu() ? 16 : 64),
        network({.features = features}),
        moving(brain(extent, 0.0, device)),
        target(brain(extent, 0.5, device)) {
    for (const auto& [name, parameter] : network.named_parameters()) {
      if (name.find("_2.conv_output") == std::string::npos) continue;
      Tensor value = parameter.value();  // an untrained network's momentum could not be shot
      for (std::int64_t i = 0; i < value.numel(); ++i) value.data<float>()[i] *= 1e-6f;
    }
    network.to(device);
    patches = MomentumPredictor(network, moving, target).patches();
  }
  Work work() const {
    return {0, static_cast<double>(patches) * flops_per_patch(static_cast<double>(features))};
  }
};

void predict_scan(benchmark::State& state, Device device) {
  Scan scan(state.range(0), device);
  measure(state, device, scan.work(), [&] { predict_momentum(scan.network, scan.moving, scan.target); });
  state.counters["patches"] = static_cast<double>(scan.patches);
}

/// Adds a constant to both scans, so that no patch is background.
void every_patch_alone(benchmark::State& state, Device device) {
  Scan scan(state.range(0), device);
  const auto filled = [&](const Tensor& image) {
    std::vector<float> values = image.to_vector<float>();
    for (float& value : values) value += 0.01f;
    return Tensor::from(values, image.shape()).to(device);
  };
  const Tensor moving = filled(scan.moving), target = filled(scan.target);
  measure(state, device, scan.work(),
          [&] { predict_momentum(scan.network, moving, target, {.batch_size = 1}); });
}

void predict_and_shoot_scan(benchmark::State& state, Device device) {
  Scan scan(state.range(0), device);
  MatchingOptions matching = registration::default_matching();
  registration::set_matching_scale(matching, 192.0 / static_cast<double>(state.range(0)));
  const NoGrad quiet;
  measure(state, device, scan.work(), [&] {
    const Tensor momentum = predict_momentum(scan.network, scan.moving, scan.target);
    shoot(Variable(momentum), matching.shooting);
  });
}

CINNABAR_BENCH(predict_scan, 64, 192);
CINNABAR_RIVAL(predict_scan, every_patch_alone, 64);
CINNABAR_BENCH(predict_and_shoot_scan, 64, 192);

}  // namespace
}  // namespace cinnabar::bench
