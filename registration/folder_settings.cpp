#include "registration/folder_settings.hpp"

#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/error.hpp"
#include "registration/output_file.hpp"

namespace cinnabar::registration {

using Json = nlohmann::ordered_json;

void claim_folder(const std::filesystem::path& folder, const char* name, const Json& settings) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) fail_input(folder.string(), ": cannot make this folder: ", error.message());
  const std::filesystem::path path = folder / name;
  if (!std::filesystem::exists(path)) return write_text(path, settings.dump(2) + "\n");
  std::ifstream file(path);
  const Json found = Json::parse(file, nullptr, false);
  if (!file || !found.is_object()) {
    fail_input(path.string(), ": not a JSON file of settings: remove it and start again");
  }
  for (const auto& [key, value] : settings.items()) {
    if (found.contains(key) && found[key] == value) continue;
    fail_input(path.string(), ": ", key, " is ", found.contains(key) ? found[key].dump() : "absent",
               " there and ", value.dump(), " now: use the same options or another folder");
  }
}

bool is_recorded(const PairEntry& pair, const std::string& name, const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / (name + ".json");
  std::ifstream file(path);
  const Json record = Json::parse(file, nullptr, false);
  if (!record.is_object() || !std::filesystem::exists(folder / (name + ".safetensors"))) return false;
  const auto is_of = [&](const char* role, const std::filesystem::path& scan) {
    const Json* there = record.contains(role) && record[role].is_string() ? &record[role] : nullptr;
    if (there == nullptr) return false;
    const std::string key = std::string(role) + "_crc32";
    return there->get<std::string>() == scan.string() || (record.contains(key) && record[key].is_string() &&
                                                          record[key].get<std::string>() == checksum(scan));
  };
  if (is_of("moving", pair.moving) && is_of("fixed", pair.fixed)) return true;
  fail_input(path.string(), ": is of other scans than the pair ", name, " of the list (",
             pair.moving.string(), ", ", pair.fixed.string(),
             "): give the pair another name, or remove what there is of it");
}

}  // namespace cinnabar::registration
