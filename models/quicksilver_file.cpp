#include "models/quicksilver_file.hpp"

#include <utility>

#include "engine/torch_file.hpp"
#include "models/network_description.hpp"
#include "models/quicksilver_import.hpp"

namespace cinnabar {

namespace {

using nlohmann::json;

constexpr const char* kMetadataKey = "quicksilver";
constexpr std::int64_t kFormat = 1;
constexpr std::int64_t kMaxSteps = 100'000;

QuicksilverRole role_of(const json& value) {
  for (const QuicksilverRole role : {QuicksilverRole::prediction, QuicksilverRole::correction}) {
    if (value == name_of(role)) return role;
  }
  fail_input("'role' is ", shown(value), ", not \"prediction\" or \"correction\"");
}

json to_json(const QuicksilverOptions& options) {
  return {{"features", options.features},
          {"patch", {options.patch[0], options.patch[1], options.patch[2]}},
          {"dropout", options.dropout}};
}

QuicksilverOptions options_from_json(const json& object) {
  require_entries(object, "network", {"features", "patch", "dropout"});
  QuicksilverOptions options;
  options.features = whole_number(object["features"], "features", 1, kMaxQuicksilverFeatures);
  const json& patch = object["patch"];
  if (!patch.is_array() || patch.size() != 3) fail_input("'patch' is not a list of three extents");
  options.patch = Shape{whole_number(patch[0], "patch", 3, kMaxQuicksilverPatch),
                        whole_number(patch[1], "patch", 3, kMaxQuicksilverPatch),
                        whole_number(patch[2], "patch", 3, kMaxQuicksilverPatch)};
  options.dropout = number_between(object, "dropout", 0.0, 1.0);
  if (options.dropout == 1.0) fail_input("'dropout' drops everything");
  return options;
}

std::string to_text(const QuicksilverDescription& description) {
  const json object = {{"format", kFormat},
                       {"network", to_json(description.network)},
                       {"role", name_of(description.role)},
                       {"momenta", to_json(description.momenta)},
                       {"notes", description.notes}};
  return object.dump(-1, ' ', true, json::error_handler_t::replace);
}

QuicksilverDescription description_from(const std::string& text) {
  const json object = parse_description(text);
  require_entries(object, "description", {"format", "network", "role", "momenta", "notes"});
  if (object["format"] != kFormat) {
    fail_input("the description has format ", shown(object["format"]), "; this version reads ", kFormat);
  }
  QuicksilverDescription description;
  description.network = options_from_json(object["network"]);
  description.role = role_of(object["role"]);
  description.momenta = momentum_model_from_json(object["momenta"]);
  description.notes = notes_in(object);
  return description;
}

ImportedQuicksilver described(SafeTensors content) {
  ImportedQuicksilver file{{}, std::move(content)};
  const auto text = file.weights.metadata.find(kMetadataKey);
  if (text != file.weights.metadata.end()) {
    file.description = description_from(text->second);
  } else {
    file.description.network.features = quicksilver_features(file.weights);
  }
  return file;
}

LoadedQuicksilver build(QuicksilverDescription description, const SafeTensors& weights, std::uint64_t seed,
                        Conv3dPrecision precision) {
  const std::int64_t features = quicksilver_features(weights);
  if (features != description.network.features) {
    fail_input("it says ", description.network.features, " features but has weights of ", features);
  }
  description.network.seed = seed;
  description.network.precision = precision;
  auto network = std::make_unique<Quicksilver>(description.network);
  network->load_state(weights);
  for (const auto& [name, parameter] : network->named_parameters()) {
    if (!is_finite(parameter.value())) fail_input(name, " holds values that are not finite");
  }
  return {std::move(network), std::move(description)};
}

}  // namespace

std::string name_of(QuicksilverRole role) {
  return role == QuicksilverRole::correction ? "correction" : "prediction";
}

std::int64_t quicksilver_features(const SafeTensors& weights) {
  const auto tensor = [&weights](const char* name) -> const Tensor& {
    const auto found = weights.tensors.find(name);
    if (found == weights.tensors.end()) fail_input("it has no tensor ", name);
    return found->second;
  };
  const Shape& input = tensor("encoder_m_1.conv_input.weight").shape();
  const Shape& largest = tensor("decoder_x_1.conv_inblock1.weight").shape();
  const std::int64_t features = input.rank() == 5 ? input[0] : 0;
  if (features < 1 || input != Shape{features, 1, 3, 3, 3} ||
      largest != Shape{4 * features, 4 * features, 3, 3, 3}) {
    fail_input("its tensors have other shapes: ", input, " and ", largest);
  }
  return features;
}

MatchingOptions MomentumModel::matching() const {
  MatchingOptions options;
  options.shooting = shooting();
  options.similarity = similarity;
  options.sigma = sigma;
  options.lncc_radius = lncc_radius;
  return options;
}

json to_json(const MomentumModel& model) {
  json object = {{"alpha", model.fluid.alpha},
                 {"beta", model.fluid.beta},
                 {"gamma", model.fluid.gamma},
                 {"power", model.fluid.power},
                 {"sigma", model.sigma},
                 {"time_steps", model.time_steps},
                 {"inverse_iterations", model.inverse_iterations},
                 {"spacing_mm", model.spacing_mm},
                 {"head_voxels", model.head_voxels}};
  if (model.similarity != Similarity::ssd) {  // files without it are of SSD
    object["similarity"] = name_of(model.similarity);
    object["lncc_radius"] = model.lncc_radius;
  }
  return object;
}

MomentumModel momentum_model_from_json(const json& object) {
  constexpr double kLarge = 1e12;
  MomentumModel model;
  json others = object;
  if (others.is_object() && others.contains("similarity")) {
    const DataTerm data = data_term_in(object);
    model.similarity = data.similarity;
    model.lncc_radius = data.lncc_radius;
    others.erase("similarity");
    others.erase("lncc_radius");
  }
  require_entries(others, "model",
                  {"alpha", "beta", "gamma", "power", "sigma", "time_steps", "inverse_iterations",
                   "spacing_mm", "head_voxels"});
  model.fluid.alpha = number_between(object, "alpha", 0.0, kLarge);
  model.fluid.beta = number_between(object, "beta", 0.0, kLarge);
  model.fluid.gamma = number_between(object, "gamma", 0.0, kLarge);
  model.fluid.power = static_cast<int>(whole_number(object["power"], "power", 1, 4));
  model.sigma = number_between(object, "sigma", 0.0, kLarge);
  model.time_steps = static_cast<int>(whole_number(object["time_steps"], "time_steps", 1, kMaxSteps));
  model.inverse_iterations =
      static_cast<int>(whole_number(object["inverse_iterations"], "inverse_iterations", 1, kMaxSteps));
  model.spacing_mm = number_between(object, "spacing_mm", 0.0, kLarge);
  model.head_voxels = number_between(object, "head_voxels", 0.0, kLarge);
  return model;
}

void save_quicksilver(const std::filesystem::path& path, const Quicksilver& network,
                      const QuicksilverDescription& description, DType storage) {
  CINNABAR_CHECK(storage == DType::f32 || storage == DType::f16 || storage == DType::bf16, "save_quicksilver",
                 "stores f32, f16 or bf16, not ", storage);
  SafeTensors content = network.state();
  for (auto& [name, tensor] : content.tensors) {
    tensor = tensor.to(storage);
    if (!is_finite(tensor)) {
      fail_input(path.string(), ": cannot write: ", name, " is not finite as ", storage,
                 "; store f32, or train with a smaller learning rate where f32 fails too");
    }
  }
  QuicksilverDescription stored = description;
  stored.network = network.options();
  content.metadata[kMetadataKey] = to_text(stored);
  save_safetensors(path, content);
}

LoadedQuicksilver load_quicksilver(const std::filesystem::path& path, std::uint64_t seed,
                                   Conv3dPrecision precision) {
  const bool original = is_torch_file(path);
  const TorchValue saved = original ? load_torch_file(path) : TorchValue{};
  SafeTensors content = original ? SafeTensors{} : load_safetensors(path);
  try {
    ImportedQuicksilver file = original ? import_quicksilver(saved) : described(std::move(content));
    return build(std::move(file.description), file.weights, seed, precision);
  } catch (const InputError& error) {
    fail_input(path.string(), ": not a network of Quicksilver: ", error.what(),
               "; make one with cinnabar train or cinnabar convert");
  }
}

}  // namespace cinnabar
