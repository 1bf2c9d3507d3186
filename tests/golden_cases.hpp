#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

namespace cinnabar::testing {

/// Folders searched for golden files: CINNABAR_GOLDEN_DIR alone when it is set, else the copies in
/// tests/golden and then ../shared/golden beside the checkout.
inline std::vector<std::filesystem::path> golden_roots() {
  if (const char* given = std::getenv("CINNABAR_GOLDEN_DIR")) return {given};
  const std::filesystem::path source = CINNABAR_SOURCE_DIR;
  return {source / "tests" / "golden", source.parent_path() / "shared" / "golden"};
}

/// Every file below the roots whose path contains `pattern` and whose name ends as given, sorted, one per
/// file name.
inline std::vector<std::filesystem::path> golden_files(const std::string& pattern,
                                                       const std::string& ending = ".safetensors") {
  std::vector<std::filesystem::path> found;
  for (const auto& root : golden_roots()) {
    std::error_code ignored;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root, ignored)) {
      const auto& path = entry.path();
      const std::string name = path.filename().string();
      if (!name.ends_with(ending) || path.string().find(pattern) == std::string::npos) continue;
      const auto same_name = [&](const auto& other) { return other.filename() == path.filename(); };
      if (std::none_of(found.begin(), found.end(), same_name)) found.push_back(path);
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace cinnabar::testing
