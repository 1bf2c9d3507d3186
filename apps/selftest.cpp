// cinnabar selftest: a synthetic registration and a derivative check, with no data needed.

#include <fmt/core.h>

#include <cmath>
#include <memory>

#include "apps/commands.hpp"
#include "apps/device_choice.hpp"
#include "autograd/elementwise.hpp"
#include "autograd/reduce.hpp"
#include "autograd/warp.hpp"
#include "models/lddmm_matching.hpp"

namespace cinnabar::apps {

namespace {

constexpr std::int64_t kExtent = 32;

/// Two soft balls, one of them moved and enlarged by `change`.
Tensor synthetic_image(double change, DType dtype, Device device) {
  std::vector<double> values;
  const auto ball = [](double x, double y, double z, double cx, double cy, double cz, double radius) {
    const double r = std::sqrt((x - cx) * (x - cx) + (y - cy) * (y - cy) + (z - cz) * (z - cz));
    return 1.0 / (1.0 + std::exp(1.5 * (r - radius)));
  };
  for (std::int64_t z = 0; z < kExtent; ++z) {
    for (std::int64_t y = 0; y < kExtent; ++y) {
      for (std::int64_t x = 0; x < kExtent; ++x) {
        const auto px = static_cast<double>(x), py = static_cast<double>(y), pz = static_cast<double>(z);
        values.push_back(0.6 * ball(px, py, pz, 15.0 + change, 16.0, 15.5, 9.0 + 0.5 * change) +
                         0.4 * ball(px, py, pz, 12.0, 17.0 - change, 16.0, 4.0));
      }
    }
  }
  return Tensor::from(values, {1, 1, kExtent, kExtent, kExtent}).to(dtype).to(device);
}

class Checks {
 public:
  void report(bool good, const std::string& line) {
    fmt::print("{}  {}\n", good ? "ok  " : "FAIL", line);
    failed_ = failed_ || !good;
  }
  bool failed() const { return failed_; }

 private:
  bool failed_ = false;
};

void check_registration(const ImagePair& pair, Checks& checks) {
  LbfgsOptions lbfgs;
  lbfgs.max_iterations = 15;
  const Tensor start = Tensor::zeros(pair.fixed.shape().with(1, 3), pair.fixed.dtype(), pair.fixed.device());
  MatchingOptions options;
  options.shooting.time_steps = 4;
  const LbfgsResult found = match(pair, start, options, lbfgs);
  const MatchingEvaluation at = evaluate_matching(pair, found.point, options);
  checks.report(found.value < 0.1 * found.first_value,
                fmt::format("registration: energy {:.4g} -> {:.4g} in {} iterations ({})", found.first_value,
                            found.value, found.iterations, describe(found.reason)));
  checks.report(at.smallest_jacobian > 0.0,
                fmt::format("no folding: smallest Jacobian determinant {:.3f}", at.smallest_jacobian));
  const NoGrad quiet;
  const double error = amax(abs(compose(at.flow.phi, at.flow.psi))).value().item();
  // Each step interpolates psi anew, which leaves errors of this size where space shrinks by half.
  checks.report(error < 0.2, fmt::format("phi o psi is the identity to {:.4f} voxels", error));
}

/// Central differences of the energy along the gradient against its squared norm.
void check_derivative(const ImagePair& pair, Checks& checks) {
  MatchingOptions options;
  options.shooting.time_steps = 5;
  const bool wide = pair.fixed.dtype() == DType::f64;
  LbfgsOptions lbfgs;
  lbfgs.max_iterations = 2;
  const Tensor start = Tensor::zeros(pair.fixed.shape().with(1, 3), pair.fixed.dtype(), pair.fixed.device());
  const Tensor point = match(pair, start, options, lbfgs).point;
  const Variable gradient(evaluate_matching(pair, point, options).gradient());
  const double slope = dot(gradient, gradient).value().item();
  const double step = (wide ? 1e-6 : 1e-4) / std::sqrt(slope);
  const auto energy = [&](double by) {
    const NoGrad quiet;
    return evaluate_matching(pair, (Variable(point) + by * gradient).value(), options).energy.total();
  };
  const double ratio = (energy(step) - energy(-step)) / (2.0 * step * slope);
  checks.report(std::abs(ratio - 1.0) < (wide ? 1e-3 : 5e-2),
                fmt::format("derivative: finite differences / gradient = {:.6f}", ratio));
}

void run(const std::string& device_name) {
  const DeviceChoice choice = choose_device(device_name);
  fmt::print("device {} ({})\n", detail::concat(choice.device), choice.reason);
  const auto pair = [&](DType dtype) {
    return ImagePair{synthetic_image(0.0, dtype, choice.device), synthetic_image(2.0, dtype, choice.device)};
  };
  Checks checks;
  check_registration(pair(DType::f32), checks);
  check_derivative(pair(choice.device.is_cpu() ? DType::f64 : DType::f32), checks);
  if (checks.failed()) fail_input("selftest failed on ", choice.device);
}

}  // namespace

void add_selftest(CLI::App& app) {
  auto device = std::make_shared<std::string>("auto");
  CLI::App& command = *app.add_subcommand("selftest", "Register a synthetic pair and check a derivative");
  command.add_option("--device", *device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  command.callback([device] { run(*device); });
}

}  // namespace cinnabar::apps
