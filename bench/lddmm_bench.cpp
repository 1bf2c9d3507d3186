// One matching iteration (shooting and reference adjoint) of a synthetic pair: fused kernels with early exit
// against the same mathematics composed of the unfused ops with 20 inverse iterations; the exact gradient;
// and L-BFGS against descent with a fixed step, both to the same energy.

#include <cmath>
#include <string>

#include "autograd/elementwise.hpp"
#include "autograd/epdiff.hpp"
#include "autograd/green_operator.hpp"
#include "autograd/layout.hpp"
#include "autograd/reduce.hpp"
#include "autograd/warp.hpp"
#include "bench/bench.hpp"
#include "bench/unfused_lddmm.hpp"
#include "models/lddmm_matching.hpp"
#include "registration/registration.hpp"

namespace cinnabar::bench {
namespace {

/// Bytes the reference's passes must move per voxel and iteration: 102 smoothings of 168 bytes, 60 samplings
/// of 60, 60 inverse updates of 36 and 60 coadjoint actions of 36.
constexpr double kBytesPerVoxel = 102 * 168 + 60 * 60 + 60 * 36 + 60 * 36;

Tensor soft_ball(std::int64_t extent, double shift, Device device) {
  std::vector<float> values;
  const double middle = 0.5 * static_cast<double>(extent - 1), radius = 0.3 * static_cast<double>(extent);
  for (std::int64_t z = 0; z < extent; ++z) {
    for (std::int64_t y = 0; y < extent; ++y) {
      for (std::int64_t x = 0; x < extent; ++x) {
        const double dx = static_cast<double>(x) - middle - shift, dy = static_cast<double>(y) - middle,
                     dz = static_cast<double>(z) - middle + 0.5 * shift;
        const double r = std::sqrt(dx * dx + dy * dy + dz * dz);
        values.push_back(static_cast<float>(1.0 / (1.0 + std::exp(0.8 * (r - radius)))));
      }
    }
  }
  return Tensor::from(values, {1, 1, extent, extent, extent}).to(device);
}

/// A pair and a momentum of a few fixed steps, so that the maps are not the identity.
struct Problem {
  ImagePair pair;
  Tensor momentum;
  MatchingOptions options;

  Problem(std::int64_t extent, Device device)
      : pair{soft_ball(extent, 0.0, device), soft_ball(extent, 2.0, device)} {
    options.shooting.inverse_iterations = 20;
    const Tensor start = Tensor::zeros(pair.fixed.shape().with(1, 3), DType::f32, device);
    momentum = descend_fixed_step(pair, start, options, 4e-6, 2).momentum;
  }
  Work work() const { return {kBytesPerVoxel * static_cast<double>(pair.fixed.numel())}; }
};

void matching_iteration(benchmark::State& state, Device device) {
  const Problem problem(state.range(0), device);
  measure(state, device, problem.work(),
          [&] { reference_gradient(problem.pair, problem.momentum, problem.options); });
}

void unfused(benchmark::State& state, Device device) {
  const Problem problem(state.range(0), device);
  const Variable fused(reference_gradient(problem.pair, problem.momentum, problem.options).gradient);
  const Variable rival(unfused_reference_gradient(problem.pair, problem.momentum, problem.options));
  const double error =
      std::sqrt(sum(square(rival - fused)).value().item() / sum(square(fused)).value().item());
  if (!(error < 1e-5)) {
    const std::string message = "the unfused gradient differs from the fused one by " + std::to_string(error);
    return state.SkipWithError(message.c_str());
  }
  measure(state, device, problem.work(),
          [&] { unfused_reference_gradient(problem.pair, problem.momentum, problem.options); });
}

void exact_gradient(benchmark::State& state, Device device) {
  Problem problem(state.range(0), device);
  problem.options.shooting.inverse_iterations = 5;
  measure(state, device, problem.work(),
          [&] { evaluate_matching(problem.pair, problem.momentum, problem.options).gradient(); });
}

/// Of the steps 4, 8, 16, 32 x 1e-6, the one that leads fixed-step descent to the lowest energy on this pair
/// in fifty iterations; with 32e-6 it no longer converges.
constexpr double kFixedStep = 16e-6;
constexpr int kFixedIterations = 50;

DescentResult descend(const Problem& problem) {
  return descend_fixed_step(problem.pair, Tensor::zeros_like(problem.momentum), problem.options, kFixedStep,
                            kFixedIterations);
}

/// Energy of a momentum in the reference's discretisation, whichever scheme found it.
double reference_energy(const Problem& problem, const Tensor& momentum) {
  return reference_gradient(problem.pair, momentum, problem.options).energy.total();
}

/// The optimiser of `cinnabar register` with its number of time steps, from zero momentum until its energy
/// falls below that of fifty fixed steps of the reference; both are then compared in the reference's terms.
void minimise(benchmark::State& state, Device device) {
  const Problem problem(state.range(0), device);
  MatchingOptions options = problem.options;
  options.shooting.time_steps = registration::default_matching().shooting.time_steps;
  options.checkpointed = false;
  const double target = reference_energy(problem, descend(problem).momentum);
  const auto above_target = [&](const LbfgsProgress& progress) { return progress.value > target; };
  LbfgsResult result;
  measure(state, device, problem.work(), [&] {
    result = match(problem.pair, Tensor::zeros_like(problem.momentum), options, {}, above_target);
  });
  if (!(reference_energy(problem, result.point) <= target)) {
    state.SkipWithError("L-BFGS stopped above the energy of the fixed steps");
  }
}

void fixed_steps(benchmark::State& state, Device device) {
  const Problem problem(state.range(0), device);
  measure(state, device, problem.work(), [&] { descend(problem); });
}

void shooting(benchmark::State& state, Device device) {
  const Problem problem(state.range(0), device);
  const NoGrad quiet;
  measure(state, device, problem.work(),
          [&] { shoot(Variable(problem.momentum), problem.options.shooting); });
}

CINNABAR_BENCH(shooting, 64, 128);
CINNABAR_BENCH(matching_iteration, 64, 128);
CINNABAR_RIVAL(matching_iteration, unfused, 64);
CINNABAR_BENCH(exact_gradient, 64, 128);
CINNABAR_BENCH(minimise, 32);
CINNABAR_RIVAL(minimise, fixed_steps, 32);

}  // namespace
}  // namespace cinnabar::bench
