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

}  // namespace cinnabar::registration
