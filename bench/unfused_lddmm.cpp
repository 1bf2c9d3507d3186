#include "bench/unfused_lddmm.hpp"

#include "autograd/elementwise.hpp"
#include "autograd/epdiff.hpp"
#include "autograd/green_operator.hpp"
#include "autograd/layout.hpp"
#include "autograd/warp.hpp"

namespace cinnabar::bench {

namespace {

Variable channel(const Variable& field, std::int64_t index) {
  return slice(field, 1, index, index + 1);
}

Variable update_inverse_unfused(const Variable& psi, const Variable& increment, int iterations) {
  Variable updated = psi;
  for (int i = 0; i < iterations; ++i) {
    const Variable back = -warp(increment, updated, Boundary::zeros);
    updated = back + warp(psi, back, Boundary::zeros);
  }
  return updated;
}

/// det(J) J^T (m o h), entry by entry.
Variable coad_unfused(const Variable& displacement, const Variable& momentum) {
  const Variable j = jacobian(displacement);
  const Variable m = warp(momentum, displacement, Boundary::zeros);
  const auto entry = [&](std::int64_t row, std::int64_t column) { return channel(j, 3 * row + column); };
  const Variable determinant = entry(0, 0) * (entry(1, 1) * entry(2, 2) - entry(1, 2) * entry(2, 1)) -
                               entry(0, 1) * (entry(1, 0) * entry(2, 2) - entry(1, 2) * entry(2, 0)) +
                               entry(0, 2) * (entry(1, 0) * entry(2, 1) - entry(1, 1) * entry(2, 0));
  std::vector<Variable> rows;
  for (std::int64_t i = 0; i < 3; ++i) {
    rows.push_back(determinant *
                   (entry(0, i) * channel(m, 0) + entry(1, i) * channel(m, 1) + entry(2, i) * channel(m, 2)));
  }
  return concat(rows, 1);
}

class UnfusedGeodesic {
 public:
  UnfusedGeodesic(const ImagePair& pair, const Tensor& momentum, const MatchingOptions& options)
      : moving_(pair.moving), fixed_(pair.fixed), m0_(momentum), options_(options) {}

  Tensor gradient() {
    shoot();
    const double variance = options_.sigma * options_.sigma;
    const Variable residual =
        (1.0 / variance) * (warp(moving_, states_.back().psi, Boundary::border) - fixed_);
    adjoint_image_ = splat(-residual, states_.back().psi, Boundary::zeros);
    Variable adjoint(Tensor::zeros_like(m0_.value()));
    const double dt = -1.0 / steps();
    Variable image_hat = -residual;  // I^ at t = 1; Splat(phi, I~) in between
    for (std::size_t i = states_.size() - 1; i > 0; --i) {
      const Flow& before = states_[i - 1];
      const Variable half = 0.5 * (states_[i].phi - before.phi);
      const Flow middle{before.phi + half, inverse(before.psi, half)};
      const Variable k1 = dt * slope(states_[i], false, image_hat, adjoint);
      const Variable k2 = dt * slope(middle, false, adjoint_image_at(middle), adjoint + 0.5 * k1);
      const Variable k3 = dt * slope(middle, false, adjoint_image_at(middle), adjoint + 0.5 * k2);
      image_hat = i == 1 ? adjoint_image_ : adjoint_image_at(before);
      const Variable k4 = dt * slope(before, i == 1, image_hat, adjoint + k3);
      adjoint = adjoint + (1.0 / 6.0) * (k1 + 2.0 * k2 + 2.0 * k3 + k4);
    }
    return (velocity(m0_) - adjoint).value();
  }

 private:
  int steps() const { return options_.shooting.time_steps; }
  Variable velocity(const Variable& momentum) const {
    return smooth(momentum, options_.shooting.fluid, options_.shooting.padding);
  }
  Variable inverse(const Variable& psi, const Variable& increment) const {
    return update_inverse_unfused(psi, increment, options_.shooting.inverse_iterations);
  }

  void shoot() {
    states_ = {identity_flow(m0_)};
    const double dt = 1.0 / steps();
    for (int step = 0; step < steps(); ++step) {
      const Flow& now = states_.back();
      const auto after = [&](const Variable& w) {
        const Variable v = velocity(coad_unfused(inverse(now.psi, w), m0_));
        return dt * warp(v, now.phi + w, Boundary::zeros);
      };
      const Variable first = step == 0 ? velocity(m0_) : velocity(coad_unfused(now.psi, m0_));
      const Variable k1 = dt * warp(first, now.phi, Boundary::zeros);
      const Variable k2 = after(0.5 * k1), k3 = after(0.5 * k2), k4 = after(k3);
      const Variable increment = (1.0 / 6.0) * (k1 + 2.0 * k2 + 2.0 * k3 + k4);
      states_.push_back({now.phi + increment, inverse(now.psi, increment)});
    }
  }

  Variable adjoint_image_at(const Flow& flow) const {
    return splat(adjoint_image_, flow.phi, Boundary::zeros);
  }

  Variable slope(const Flow& at, bool at_start, const Variable& image_hat, const Variable& adjoint) const {
    const Variable m = at_start ? m0_ : coad_unfused(at.psi, m0_);
    const Variable image = at_start ? moving_ : warp(moving_, at.psi, Boundary::border);
    const Variable hat = at_start ? adjoint : warp(adjoint, at.psi, Boundary::zeros);
    const Variable force = image_hat * image_gradient(image) - coad_inf(hat, m);
    const Variable sum = jacobian_times_vector(velocity(m), hat) + velocity(force);
    return at_start ? sum : warp(sum, at.phi, Boundary::zeros);
  }

  Variable moving_, fixed_, m0_;
  MatchingOptions options_;
  std::vector<Flow> states_;
  Variable adjoint_image_;
};

}  // namespace

Tensor unfused_reference_gradient(const ImagePair& pair, const Tensor& momentum,
                                  const MatchingOptions& options) {
  const NoGrad quiet;
  return UnfusedGeodesic(pair, momentum, options).gradient();
}

}  // namespace cinnabar::bench
