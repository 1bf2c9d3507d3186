#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>

namespace cinnabar::registration {

/// Makes the folder and writes the settings that all of its files share under that name, or checks that those
/// it has are these. Throws InputError that says where they differ.
void claim_folder(const std::filesystem::path& folder, const char* name,
                  const nlohmann::ordered_json& settings);

}  // namespace cinnabar::registration
