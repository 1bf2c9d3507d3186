#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/elementwise.hpp"
#include "layers/optimizer.hpp"

namespace cinnabar {

Schedule step_schedule(std::int64_t every, double factor) {
  CINNABAR_CHECK(every >= 1, "schedule", "period ", every, " must be at least 1");
  return [=](std::int64_t step) { return std::pow(factor, static_cast<double>(step / every)); };
}

Schedule cosine_schedule(std::int64_t steps, double lowest) {
  CINNABAR_CHECK(steps >= 1, "schedule", "length ", steps, " must be at least 1");
  return [=](std::int64_t step) {
    const double part = static_cast<double>(std::min(step, steps)) / static_cast<double>(steps);
    return lowest + (1.0 - lowest) * 0.5 * (1.0 + std::cos(std::numbers::pi * part));
  };
}

Schedule warmup_schedule(std::int64_t steps, Schedule then) {
  CINNABAR_CHECK(steps >= 0 && then != nullptr, "schedule", "warm-up of ", steps, " steps needs a successor");
  return [steps, then = std::move(then)](std::int64_t step) {
    return step < steps ? static_cast<double>(step + 1) / static_cast<double>(steps) : then(step - steps);
  };
}

MovingAverage::MovingAverage(const std::vector<NamedVariable>& parameters, double decay)
    : parameters_(parameters), decay_(decay) {
  CINNABAR_CHECK(decay >= 0.0 && decay <= 1.0, "moving_average", "decay ", decay, " is not in [0, 1]");
  for (const auto& [name, variable] : parameters_) averages_.push_back(variable.value().clone());
}

void MovingAverage::update() {
  for (std::size_t i = 0; i < averages_.size(); ++i) {
    const Elementwise& kernels = elementwise_on(averages_[i].device());
    kernels.unary(Unary::affine, averages_[i], decay_, 0.0, averages_[i]);
    kernels.axpy(1.0 - decay_, parameters_[i].variable.value(), averages_[i]);
  }
}

void MovingAverage::swap() {
  for (std::size_t i = 0; i < averages_.size(); ++i) {
    const Tensor value = parameters_[i].variable.value();
    parameters_[i].variable.set_value(averages_[i]);
    averages_[i] = value;
  }
}

SafeTensors MovingAverage::state() const {
  SafeTensors content;
  for (std::size_t i = 0; i < averages_.size(); ++i) {
    content.tensors[parameters_[i].name] = averages_[i].clone().to(Device::cpu());
  }
  return content;
}

void MovingAverage::load_state(const SafeTensors& state) {
  if (state.tensors.size() != averages_.size()) fail_input("the averages are those of other parameters");
  for (std::size_t i = 0; i < averages_.size(); ++i) {
    const auto found = state.tensors.find(parameters_[i].name);
    if (found == state.tensors.end() || found->second.shape() != averages_[i].shape() ||
        !is_floating(found->second.dtype())) {
      fail_input("the averages do not fit parameter ", parameters_[i].name);
    }
  }
  for (std::size_t i = 0; i < averages_.size(); ++i) {
    averages_[i].copy_from(state.tensors.at(parameters_[i].name).to(averages_[i].dtype()));
  }
}

}  // namespace cinnabar
