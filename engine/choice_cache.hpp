#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace cinnabar {

/// Choices that were measured once, kept in a text file so that no process measures them again. The file is
/// a convenience: one that cannot be read, is damaged or cannot be written is passed over in silence, and
/// choices then last as long as the process.
///
/// Format: the line "cinnabar choices 1", then one line "CHOICE KEY" each. Any number of threads and
/// processes may share a file; each writes all choices under a temporary name and renames it.
class ChoiceCache {
 public:
  /// An empty path: no file.
  explicit ChoiceCache(std::filesystem::path file) : file_(std::move(file)) {}

  /// What is kept for `key`, if it is one of `allowed`; else what `measure` returns, which is kept. Threads
  /// measure one after another, and the first choice of a key that reaches the file is everyone's. Keys and
  /// choices are single lines, choices without spaces.
  std::string choose(const std::string& key, const std::vector<std::string>& allowed,
                     const std::function<std::string()>& measure);

 private:
  using Choices = std::map<std::string, std::string>;

  bool find(const std::string& key, const std::vector<std::string>& allowed, std::string& choice);
  /// The choices in the file; none where there is no such file or it is not of this format.
  Choices read() const;
  void write(const Choices& choices) const;

  std::filesystem::path file_;
  std::mutex measuring_;  ///< held while measuring and writing
  std::mutex reading_;    ///< guards the two below
  Choices choices_;
  bool was_read_ = false;
};

/// The process's cache: choices.txt in $CINNABAR_CACHE_DIR, else $XDG_CACHE_HOME/cinnabar, else
/// ~/.cache/cinnabar. The environment is read at the first call.
ChoiceCache& choice_cache();

}  // namespace cinnabar
