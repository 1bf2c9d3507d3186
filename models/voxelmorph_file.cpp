#include "models/voxelmorph_file.hpp"

#include <nlohmann/json.hpp>
#include <utility>

#include "models/network_description.hpp"

namespace cinnabar {

namespace {

using nlohmann::json;

constexpr const char* kMetadataKey = "voxelmorph";
constexpr const char* kRole = "voxelmorph";
constexpr std::int64_t kFormat = 1;
constexpr std::int64_t kMaxFeatures = 1 << 12;
constexpr std::int64_t kMaxLevels = 12;
constexpr std::int64_t kMaxConvolutions = 64;
constexpr double kLarge = 1e12;

json to_json(const VoxelmorphOptions& options) {
  return {{"features", options.features},         {"levels", options.levels},
          {"convolutions", options.convolutions}, {"half_resolution", options.half_resolution},
          {"squarings", options.squarings},       {"symmetric", options.symmetric}};
}

VoxelmorphOptions options_from_json(const json& object) {
  require_entries(object, "network",
                  {"features", "levels", "convolutions", "half_resolution", "squarings", "symmetric"});
  VoxelmorphOptions options;
  options.features = whole_number(object["features"], "features", 1, kMaxFeatures);
  options.levels = whole_number(object["levels"], "levels", 2, kMaxLevels);
  options.convolutions = whole_number(object["convolutions"], "convolutions", 1, kMaxConvolutions);
  options.half_resolution = truth_value(object, "half_resolution");
  options.squarings = static_cast<int>(whole_number(object["squarings"], "squarings", 0, 30));
  options.symmetric = truth_value(object, "symmetric");
  return options;
}

json to_json(const VoxelmorphLoss& loss) {
  return {{"similarity", name_of(loss.similarity)},
          {"lncc_radius", loss.lncc_radius},
          {"smoothness", loss.smoothness}};
}

VoxelmorphLoss loss_from_json(const json& object) {
  require_entries(object, "loss", {"similarity", "lncc_radius", "smoothness"});
  VoxelmorphLoss loss;
  const DataTerm data = data_term_in(object);
  loss.similarity = data.similarity;
  loss.lncc_radius = data.lncc_radius;
  loss.smoothness = number_between(object, "smoothness", 0.0, kLarge);
  return loss;
}

std::string to_text(const VoxelmorphDescription& description) {
  const json object = {
      {"format", kFormat},
      {"role", kRole},
      {"network", to_json(description.network)},
      {"loss", to_json(description.loss)},
      {"grid", {{"spacing_mm", description.spacing_mm}, {"head_voxels", description.head_voxels}}},
      {"notes", description.notes}};
  return object.dump(-1, ' ', true, json::error_handler_t::replace);
}

VoxelmorphDescription description_from(const std::string& text) {
  const json object = parse_description(text);
  require_entries(object, "description", {"format", "role", "network", "loss", "grid", "notes"});
  if (object["format"] != kFormat) {
    fail_input("the description has format ", shown(object["format"]), "; this version reads ", kFormat);
  }
  if (object["role"] != kRole) fail_input("'role' is ", shown(object["role"]), ", not \"", kRole, "\"");
  VoxelmorphDescription description;
  description.network = options_from_json(object["network"]);
  description.loss = loss_from_json(object["loss"]);
  require_entries(object["grid"], "grid", {"spacing_mm", "head_voxels"});
  description.spacing_mm = number_between(object["grid"], "spacing_mm", 0.0, kLarge);
  description.head_voxels = number_between(object["grid"], "head_voxels", 0.0, kLarge);
  description.notes = notes_in(object);
  return description;
}

LoadedVoxelmorph build(VoxelmorphDescription description, const SafeTensors& content) {
  std::int64_t weights = 0;
  for (const auto& [name, tensor] : content.tensors) weights += tensor.numel();
  const std::int64_t expected = voxelmorph_weights(description.network);
  if (weights != expected) {
    fail_input("it has ", weights, " weights where its description asks for ", expected);
  }
  auto network = std::make_unique<Voxelmorph>(description.network);
  network->load_state({content.tensors, {}});
  for (const auto& [name, parameter] : network->named_parameters()) {
    if (!is_finite(parameter.value())) fail_input(name, " holds values that are not finite");
  }
  return {std::move(network), std::move(description)};
}

}  // namespace

void save_voxelmorph(const std::filesystem::path& path, const Voxelmorph& network,
                     const VoxelmorphDescription& description) {
  SafeTensors content = network.state();
  for (const auto& [name, tensor] : content.tensors) {
    if (!is_finite(tensor)) {
      fail_input(path.string(), ": cannot write: ", name,
                 " is not finite; train with a smaller learning rate");
    }
  }
  VoxelmorphDescription stored = description;
  stored.network = network.options();
  content.metadata[kMetadataKey] = to_text(stored);
  save_safetensors(path, content);
}

LoadedVoxelmorph load_voxelmorph(const std::filesystem::path& path) {
  const SafeTensors content = load_safetensors(path);
  try {
    const auto text = content.metadata.find(kMetadataKey);
    if (text == content.metadata.end()) fail_input("it has no description of one");
    return build(description_from(text->second), content);
  } catch (const InputError& error) {
    fail_input(path.string(), ": not a network of VoxelMorph: ", error.what(),
               "; make one with cinnabar train voxelmorph");
  }
}

bool is_voxelmorph_file(const std::filesystem::path& path) {
  try {
    return load_safetensors(path).metadata.contains(kMetadataKey);
  } catch (const InputError&) {
    return false;
  }
}

}  // namespace cinnabar
