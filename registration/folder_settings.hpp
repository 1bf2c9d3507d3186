#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "registration/cohort.hpp"

namespace cinnabar::registration {

/// Makes the folder and writes the settings that all of its files share under that name, or checks that those
/// it has are these. Throws InputError that says where they differ.
void claim_folder(const std::filesystem::path& folder, const char* name,
                  const nlohmann::ordered_json& settings);

/// Whether the folder holds NAME.safetensors and, as NAME.json, the record of this pair: the same paths, or
/// files of the same checksums. Throws InputError if the record is that of other scans.
bool is_recorded(const PairEntry& pair, const std::string& name, const std::filesystem::path& folder);

}  // namespace cinnabar::registration
