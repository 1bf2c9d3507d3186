#include "models/quicksilver_import.hpp"

#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include "engine/printable.hpp"

namespace cinnabar {

namespace {

constexpr std::string_view kState = "state_dict";
constexpr std::string_view kModel = "deformation_params";
constexpr std::string_view kParallelPrefix = "module.";  ///< of torch.nn.DataParallel
constexpr std::size_t kMaxNotes = 1000;

double number(const TorchValue& value, std::string_view key) {
  const std::optional<double> found = value.number();
  if (!found) fail_input("'", key, "' is not a number");
  return *found;
}

std::int64_t whole(const TorchValue& value, std::string_view key, std::int64_t least, std::int64_t most) {
  const double found = number(value, key);
  if (!(found >= static_cast<double>(least) && found <= static_cast<double>(most))) {
    fail_input("'", key, "' is ", found, ", not in [", least, ", ", most, "]");
  }
  return static_cast<std::int64_t>(found);
}

/// One extent for all axes, or three.
Shape patch_of(const TorchValue& value) {
  const auto extent = [](const TorchValue& one) { return whole(one, "patch_size", 3, kMaxQuicksilverPatch); };
  if (const auto* list = value.as<TorchValue::List>()) {
    if (list->size() != 3) fail_input("'patch_size' is not a number or a list of three");
    return {extent((*list)[0]), extent((*list)[1]), extent((*list)[2])};
  }
  return {extent(value), extent(value), extent(value)};
}

/// A plain value as text; nothing for tensors and nested values.
std::optional<std::string> note_of(const TorchValue& value) {
  if (const auto* text = value.as<std::string>()) return printable(*text);
  if (const auto* truth = value.as<bool>()) return *truth ? "true" : "false";
  if (const auto found = value.number()) return detail::concat(*found);
  return std::nullopt;
}

void add_note(QuicksilverDescription& description, const std::string& key, const TorchValue& value) {
  const std::optional<std::string> text = note_of(value);
  if (text && description.notes.size() < kMaxNotes) description.notes[printable(key)] = *text;
}

/// Takes one setting of the original's LDDMM; false for those that are unknown here.
bool take_setting(MomentumModel& model, const std::string& key, const TorchValue& value) {
  constexpr double kLarge = 1e12;
  const auto magnitude = [&](const TorchValue& given) {
    const double found = number(given, key);
    if (!(found >= 0.0 && found <= kLarge)) fail_input("'", key, "' is ", found);
    return found;
  };
  const std::array<std::pair<std::string_view, double*>, 4> magnitudes{{{"alpha", &model.fluid.alpha},
                                                                        {"beta", &model.fluid.beta},
                                                                        {"gamma", &model.fluid.gamma},
                                                                        {"sigma", &model.sigma}}};
  for (const auto& [name, target] : magnitudes) {
    if (key != name) continue;
    *target = magnitude(value);
    return true;
  }
  const auto* list = value.as<TorchValue::List>();
  if (key == "diffOpParams" && list != nullptr && list->size() == 3) {
    for (std::size_t i = 0; i < 3; ++i) *magnitudes[i].second = magnitude((*list)[i]);
    return true;
  }
  constexpr std::int64_t kMostSteps = 100'000;
  if (key == "timeSteps" || key == "nTimeSteps") {
    model.time_steps = static_cast<int>(whole(value, key, 1, kMostSteps));
    return true;
  }
  if (key == "NIterForInverse") {
    model.inverse_iterations = static_cast<int>(whole(value, key, 1, kMostSteps));
    return true;
  }
  return false;
}

void take_model(QuicksilverDescription& description, const TorchValue& value) {
  const auto* settings = value.as<TorchValue::Dict>();
  if (settings == nullptr) return;
  for (const auto& [key, setting] : *settings) {
    if (!take_setting(description.momenta, key, setting)) {
      add_note(description, std::string(kModel) + "." + key, setting);
    }
  }
}

SafeTensors weights_of(const TorchValue& state) {
  const auto* entries = state.as<TorchValue::Dict>();
  if (entries == nullptr) fail_input("its state_dict is not a dictionary");
  SafeTensors weights;
  for (const auto& [key, value] : *entries) {
    const Tensor* tensor = value.as<Tensor>();
    if (tensor == nullptr) fail_input("the entry ", printable(key), " of its state_dict is not a tensor");
    const std::string_view name = key;
    const std::size_t prefix = name.starts_with(kParallelPrefix) ? kParallelPrefix.size() : 0;
    weights.tensors[std::string(name.substr(prefix))] = *tensor;
  }
  return weights;
}

}  // namespace

ImportedQuicksilver import_quicksilver(const TorchValue& content) {
  ImportedQuicksilver imported;
  QuicksilverDescription& description = imported.description;
  const TorchValue* state = content.find(kState);
  imported.weights = weights_of(state != nullptr ? *state : content);
  description.network.features = quicksilver_features(imported.weights);
  if (state == nullptr) return imported;
  for (const auto& [key, value] : *content.as<TorchValue::Dict>()) {
    if (key == kState) continue;
    if (key == "patch_size") {
      description.network.patch = patch_of(value);
    } else if (key == "network_feature") {
      description.network.features = whole(value, key, 1, kMaxQuicksilverFeatures);
    } else if (key == kModel) {
      take_model(description, value);
    } else {
      add_note(description, key, value);
    }
  }
  return imported;
}

}  // namespace cinnabar
