#include "layers/module.hpp"

#include <algorithm>

#include "autograd/move_value.hpp"
#include "autograd/optimizer_step.hpp"
#include "layers/initializer.hpp"

namespace cinnabar {

namespace {

Tensor tensor_of(const RandomSequence& place) {
  return Tensor::from(std::vector<std::int64_t>{static_cast<std::int64_t>(place.seed),
                                                static_cast<std::int64_t>(place.stream),
                                                static_cast<std::int64_t>(place.offset)},
                      {3});
}

RandomSequence place_of(const std::string& name, const Tensor& tensor) {
  if (tensor.dtype() != DType::i64 || tensor.shape() != Shape{3}) {
    fail_input("the random state's ", name, " is ", tensor.dtype(), ' ', tensor.shape(),
               " but should be i64 [3]");
  }
  const std::vector<std::int64_t> values = tensor.to_vector<std::int64_t>();
  if (values[2] < 0) fail_input("the random state's ", name, " has the offset ", values[2]);
  return {static_cast<std::uint64_t>(values[0]), static_cast<std::uint64_t>(values[1]),
          static_cast<std::uint64_t>(values[2])};
}

}  // namespace

std::vector<NamedVariable> Module::named_parameters() const {
  std::vector<NamedVariable> found;
  collect("", false, found);
  return found;
}

std::vector<NamedVariable> Module::named_buffers() const {
  std::vector<NamedVariable> found;
  collect("", true, found);
  return found;
}

std::vector<Variable> Module::parameters() const {
  std::vector<Variable> found;
  for (const auto& [name, variable] : named_parameters()) found.push_back(variable);
  return found;
}

std::int64_t Module::parameter_count() const {
  std::int64_t count = 0;
  for (const Variable& parameter : parameters()) count += parameter.value().numel();
  return count;
}

SafeTensors Module::state() const {
  SafeTensors content;
  for (const auto& [name, variable] : all_variables()) {
    content.tensors[name] = variable.value().clone().to(Device::cpu());
  }
  return content;
}

void Module::load_state(const SafeTensors& state, bool strict) {
  std::vector<NamedVariable> known = all_variables();
  std::string complaints;
  std::size_t matched = 0;
  for (const auto& [name, variable] : known) {
    const auto given = state.tensors.find(name);
    if (given == state.tensors.end()) {
      if (strict) complaints += "; missing " + name;
      continue;
    }
    ++matched;
    const Tensor& mine = variable.value();
    const Tensor& theirs = given->second;
    const bool convertible = is_floating(mine.dtype()) && is_floating(theirs.dtype());
    if (mine.shape() != theirs.shape() || (mine.dtype() != theirs.dtype() && !convertible)) {
      complaints += detail::concat("; ", name, " is ", theirs.dtype(), ' ', theirs.shape(), " but should be ",
                                   mine.dtype(), ' ', mine.shape());
    }
  }
  if (strict && matched < state.tensors.size()) {
    for (const auto& [name, tensor] : state.tensors) {
      const bool expected =
          std::any_of(known.begin(), known.end(), [&name = name](const auto& k) { return k.name == name; });
      if (!expected) complaints += "; unexpected " + name;
    }
  }
  if (!complaints.empty()) fail_input("the state does not fit the module: ", complaints.substr(2));
  for (auto& [name, variable] : known) {
    const auto given = state.tensors.find(name);
    if (given == state.tensors.end()) continue;
    Tensor value = variable.value().clone();
    value.copy_from(given->second.to(Device::cpu()).to(value.dtype()));
    variable.set_value(value);
  }
}

void Module::save(const std::filesystem::path& path) const {
  save_safetensors(path, state());
}

void Module::load(const std::filesystem::path& path, bool strict) {
  const SafeTensors content = load_safetensors(path);
  try {
    load_state(content, strict);
  } catch (const InputError& error) {
    fail_input(path.string(), ": ", error.what());
  }
}

SafeTensors Module::random_state() const {
  std::vector<NamedGenerator> generators;
  collect_generators("", generators);
  SafeTensors content;
  for (const auto& [name, generator] : generators) content.tensors[name] = tensor_of(generator->place());
  return content;
}

void Module::load_random_state(const SafeTensors& state) {
  std::vector<NamedGenerator> generators;
  collect_generators("", generators);
  std::vector<RandomSequence> places;
  for (const auto& [name, generator] : generators) {
    const auto given = state.tensors.find(name);
    if (given == state.tensors.end()) fail_input("the random state has no ", name);
    places.push_back(place_of(name, given->second));
  }
  if (state.tensors.size() != places.size()) fail_input("the random state has names that the module lacks");
  for (std::size_t i = 0; i < places.size(); ++i) generators[i].second->set_place(places[i]);
}

void Module::train(bool training) {
  training_ = training;
  for (const auto& [name, child] : children_) child->train(training);
}

void Module::to(Device device) {
  require_device(device);
  for (auto& [name, variable] : all_variables()) move_value(variable, variable.value().to(device));
}

void Module::to(DType dtype) {
  CINNABAR_CHECK(is_floating(dtype), "module", "cannot take dtype ", dtype);
  for (auto& [name, variable] : all_variables()) {
    const Tensor& value = variable.value();
    if (!is_floating(value.dtype())) continue;
    move_value(variable, value.to(Device::cpu()).to(dtype).to(value.device()));
  }
}

void Module::clear_gradients() {
  cinnabar::clear_gradients(parameters());
}

Variable Module::add_parameter(const std::string& name, Tensor value) {
  check_name(name);
  parameters_.push_back({name, Variable(std::move(value), true)});
  return parameters_.back().variable;
}

Variable Module::add_buffer(const std::string& name, Tensor value) {
  check_name(name);
  buffers_.push_back({name, Variable(std::move(value))});
  return buffers_.back().variable;
}

void Module::add_child(const std::string& name, Module& child) {
  check_name(name);
  children_.emplace_back(name, &child);
}

void Module::add_generator(const std::string& name, Generator& generator) {
  check_name(name);
  generators_.emplace_back(name, &generator);
}

void Module::check_name(const std::string& name) const {
  CINNABAR_CHECK(!name.empty() && name.find('.') == std::string::npos, "module", "name '", name,
                 "' is empty or has a dot");
  const auto same = [&](const NamedVariable& other) { return other.name == name; };
  const bool taken =
      std::any_of(parameters_.begin(), parameters_.end(), same) ||
      std::any_of(buffers_.begin(), buffers_.end(), same) ||
      std::any_of(children_.begin(), children_.end(), [&](const auto& c) { return c.first == name; }) ||
      std::any_of(generators_.begin(), generators_.end(), [&](const auto& g) { return g.first == name; });
  CINNABAR_CHECK(!taken, "module", "name '", name, "' is used twice");
}

void Module::collect(const std::string& prefix, bool buffers, std::vector<NamedVariable>& found) const {
  for (const auto& [name, variable] : buffers ? buffers_ : parameters_) {
    found.push_back({prefix + name, variable});
  }
  for (const auto& [name, child] : children_) child->collect(prefix + name + '.', buffers, found);
}

void Module::collect_generators(const std::string& prefix, std::vector<NamedGenerator>& found) const {
  for (const auto& [name, generator] : generators_) found.emplace_back(prefix + name, generator);
  for (const auto& [name, child] : children_) child->collect_generators(prefix + name + '.', found);
}

std::vector<NamedVariable> Module::all_variables() const {
  std::vector<NamedVariable> found = named_parameters();
  for (NamedVariable& buffer : named_buffers()) found.push_back(std::move(buffer));
  return found;
}

bool Layer::join(EpilogueInputs&, std::int64_t) {
  return false;
}

}  // namespace cinnabar
