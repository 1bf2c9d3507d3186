#pragma once

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace cinnabar::testing {

/// Folders searched for golden files: CINNABAR_GOLDEN_DIR alone when it is set, else the copies in
/// tests/golden and then ../shared/golden beside the checkout. Ends the program where the variable names no
/// folder: nothing would be tested.
inline std::vector<std::filesystem::path> golden_roots() {
  if (const char* given = std::getenv("CINNABAR_GOLDEN_DIR")) {
    std::error_code ignored;
    if (std::filesystem::is_directory(given, ignored)) return {given};
    std::fprintf(stderr, "error: CINNABAR_GOLDEN_DIR names no folder: \"%s\"\n", given);
    std::exit(1);
  }
  const std::filesystem::path source = CINNABAR_SOURCE_DIR;
  return {source / "tests" / "golden", source.parent_path() / "shared" / "golden"};
}

/// Every file below the roots whose path contains `pattern` and whose name ends as given, sorted. Links to
/// folders are followed, each folder once. Of files with the same path below their roots the first root's
/// counts.
inline std::vector<std::filesystem::path> golden_files(
    const std::string& pattern, const std::string& ending = ".safetensors",
    const std::vector<std::filesystem::path>& roots = golden_roots()) {
  namespace fs = std::filesystem;
  std::map<fs::path, fs::path> found;  // by the path below the root
  for (const auto& root : roots) {
    std::error_code ignored;
    std::set<fs::path> visited{fs::weakly_canonical(root, ignored)};
    constexpr auto kOptions =
        fs::directory_options::follow_directory_symlink | fs::directory_options::skip_permission_denied;
    fs::recursive_directory_iterator entry(root, kOptions, ignored);
    for (; entry != fs::recursive_directory_iterator(); entry.increment(ignored)) {
      const fs::path& path = entry->path();
      if (entry->is_directory(ignored)) {
        const bool is_new = visited.insert(fs::canonical(path, ignored)).second;
        if (!is_new) entry.disable_recursion_pending();
      } else if (path.filename().string().ends_with(ending) &&
                 path.string().find(pattern) != std::string::npos) {
        found.emplace(path.lexically_relative(root), path);
      }
    }
  }
  std::vector<fs::path> paths;
  for (const auto& [below, path] : found) paths.push_back(path);
  std::sort(paths.begin(), paths.end());
  return paths;
}

/// The metadata of a safetensors file, even where the tensors behind it are cut off; none where the header
/// itself is damaged.
inline std::optional<std::map<std::string, std::string>> golden_metadata(const std::filesystem::path& path) {
  std::error_code error;
  const std::uintmax_t bytes = std::filesystem::file_size(path, error);
  std::ifstream file(path, std::ios::binary);
  std::uint64_t length = 0;
  for (int byte = 0; byte < 8; ++byte) length |= static_cast<std::uint64_t>(file.get() & 255) << 8 * byte;
  if (error || !file || length > bytes - 8) return std::nullopt;
  std::string text(static_cast<std::size_t>(length), '\0');
  file.read(text.data(), static_cast<std::streamsize>(length));
  const nlohmann::json header = nlohmann::json::parse(text, nullptr, false);
  if (!header.is_object()) return std::nullopt;
  std::map<std::string, std::string> metadata;
  const nlohmann::json entries = header.value("__metadata__", nlohmann::json::object());
  for (const auto& [key, value] : entries.items()) {
    if (value.is_string()) metadata[key] = value.get<std::string>();
  }
  return metadata;
}

/// Which of the cases A to D of EPDiff and LDDMM a file holds, or 0. Files with damaged headers count by
/// their names, below a folder or in a file named epdiff.
inline char epdiff_case(const std::filesystem::path& path) {
  const auto is_case = [](char letter) { return letter >= 'A' && letter <= 'D'; };
  const auto metadata = golden_metadata(path);
  if (!metadata) {
    const char first = path.filename().string().front();
    return path.string().find("epdiff") == std::string::npos ? '\0' : is_case(first) ? first : 'A';
  }
  const auto found = metadata->find("case");
  const bool is_epdiff = metadata->contains("alpha") || metadata->contains("nx");
  if (!is_epdiff || found == metadata->end() || found->second.empty()) return '\0';
  return is_case(found->second.front()) ? found->second.front() : '\0';
}

/// `text` as part of a test's name, which may hold letters, digits and '_'.
inline std::string as_test_name(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return text;
}

}  // namespace cinnabar::testing
