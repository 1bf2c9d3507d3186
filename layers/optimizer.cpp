#include "layers/optimizer.hpp"

#include <algorithm>
#include <charconv>

namespace cinnabar {

namespace {

constexpr const char* kStepPrefix = "step.";

std::int64_t parse_step(const std::string& text) {
  std::int64_t step = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), step);
  if (error != std::errc{} || end != text.data() + text.size() || step < 1) {
    fail_input("the optimiser's state has the step count '", text, "'");
  }
  return step;
}

}  // namespace

void Optimizer::clear_gradients() {
  cinnabar::clear_gradients(parameters());
}

std::vector<Variable> Optimizer::parameters() const {
  std::vector<Variable> all;
  for (const Slot& slot : slots_) all.push_back(slot.parameter);
  return all;
}

void Optimizer::set_rate_factor(double factor) {
  CINNABAR_CHECK(factor >= 0.0, "optimizer", "rate factor ", factor, " is negative");
  rate_factor_ = factor;
}

void Optimizer::add_slots(const std::vector<NamedVariable>& parameters) {
  for (const auto& [name, variable] : parameters) {
    CINNABAR_CHECK(variable.requires_grad(), "optimizer", "parameter '", name, "' takes no gradient");
    const bool taken =
        std::any_of(slots_.begin(), slots_.end(), [&name = name](const Slot& s) { return s.name == name; });
    CINNABAR_CHECK(!taken, "optimizer", "parameter '", name, "' is given twice");
    slots_.push_back({name, variable, 0, {}});
  }
}

Tensor& Optimizer::average(Slot& slot, const char* kind) {
  Tensor& tensor = slot.averages[kind];
  if (!tensor.defined()) tensor = Tensor::zeros_like(slot.parameter.value());
  return tensor;
}

SafeTensors Optimizer::state() const {
  SafeTensors content;
  content.metadata["optimizer"] = kind();
  for (const Slot& slot : slots_) {
    if (slot.step == 0) continue;
    content.metadata[kStepPrefix + slot.name] = std::to_string(slot.step);
    for (const auto& [kind, tensor] : slot.averages) {
      content.tensors[kind + '.' + slot.name] = tensor.clone().to(Device::cpu());
    }
  }
  return content;
}

void Optimizer::load_state(const SafeTensors& state) {
  const auto stored_kind = state.metadata.find("optimizer");
  if (stored_kind == state.metadata.end() || stored_kind->second != kind()) {
    fail_input("the state is not that of the optimiser ", kind());
  }
  std::vector<std::int64_t> steps;
  std::vector<std::map<std::string, Tensor>> averages;
  std::size_t used = 0;
  std::size_t counted = 0;
  for (const Slot& slot : slots_) {
    const auto step = state.metadata.find(kStepPrefix + slot.name);
    counted += step != state.metadata.end() ? 1 : 0;
    steps.push_back(step == state.metadata.end() ? 0 : parse_step(step->second));
    averages.emplace_back();
    for (const std::string& kind : average_kinds()) {
      const auto found = state.tensors.find(kind + '.' + slot.name);
      if (found == state.tensors.end()) continue;
      ++used;
      const Tensor& value = slot.parameter.value();
      if (found->second.shape() != value.shape() || !is_floating(found->second.dtype()) ||
          steps.back() == 0) {
        fail_input("the optimiser's state does not fit parameter ", slot.name);
      }
      averages.back()[kind] = found->second.to(value.dtype()).clone().to(value.device());
    }
  }
  const auto given = std::count_if(state.metadata.begin(), state.metadata.end(),
                                   [](const auto& entry) { return entry.first.rfind(kStepPrefix, 0) == 0; });
  if (used != state.tensors.size() || static_cast<std::ptrdiff_t>(counted) != given) {
    fail_input("the optimiser's state has parameters that the optimiser lacks");
  }
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    slots_[i].step = steps[i];
    slots_[i].averages = std::move(averages[i]);
  }
}

Sgd::Sgd(const std::vector<NamedVariable>& parameters, const SgdOptions& options)
    : Sgd(std::vector<ParameterGroup<SgdOptions>>{{parameters, options}}) {}

Sgd::Sgd(const std::vector<ParameterGroup<SgdOptions>>& groups) {
  for (const auto& group : groups) {
    check_sgd({}, group.options);
    groups_.push_back(add_group(group));
  }
}

void Sgd::step() {
  for (const auto& group : groups_) {
    std::vector<SgdParameter> updates;
    for (std::size_t i = group.first; i < group.end; ++i) {
      Slot& slot = this->slot(i);
      if (!slot.parameter.grad().defined()) continue;
      const bool uses_momentum = group.options.momentum != 0.0;
      updates.push_back({slot.parameter.value(), slot.parameter.grad(),
                         uses_momentum ? average(slot, "momentum_buffer") : Tensor{}, ++slot.step == 1});
    }
    if (updates.empty()) continue;
    SgdOptions options = group.options;
    options.learning_rate *= rate_factor();
    optimizer_step_on(updates.front().value.device()).sgd(updates, options);
  }
}

Adam::Adam(const std::vector<NamedVariable>& parameters, const AdamOptions& options)
    : Adam(std::vector<ParameterGroup<AdamOptions>>{{parameters, options}}) {}

Adam::Adam(const std::vector<ParameterGroup<AdamOptions>>& groups) {
  for (const auto& group : groups) {
    check_adam({}, group.options);
    groups_.push_back(add_group(group));
  }
}

void Adam::step() {
  for (const auto& group : groups_) {
    std::vector<AdamParameter> updates;
    for (std::size_t i = group.first; i < group.end; ++i) {
      Slot& slot = this->slot(i);
      if (!slot.parameter.grad().defined()) continue;
      updates.push_back({slot.parameter.value(), slot.parameter.grad(), average(slot, "exp_avg"),
                         average(slot, "exp_avg_sq"),
                         group.options.amsgrad ? average(slot, "max_exp_avg_sq") : Tensor{}, ++slot.step});
    }
    if (updates.empty()) continue;
    AdamOptions options = group.options;
    options.learning_rate *= rate_factor();
    optimizer_step_on(updates.front().value.device()).adam(updates, options);
  }
}

AdamOptions adamw_options(double learning_rate, double weight_decay) {
  AdamOptions options;
  options.learning_rate = learning_rate;
  options.weight_decay = weight_decay;
  options.decoupled = true;
  return options;
}

}  // namespace cinnabar
