#include "engine/choice_cache.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "engine/error.hpp"

namespace cinnabar {

namespace {

constexpr const char* kHeader = "cinnabar choices 1";

/// Holds FILE.lock while it lives, so that no process writes between another's reading and writing. Where
/// locking is not possible a choice may get lost, to be measured again.
class FileLock {
 public:
  explicit FileLock(std::filesystem::path file)
      : descriptor_(::open((file += ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666)) {
    if (descriptor_ >= 0) ::flock(descriptor_, LOCK_EX);
  }
  ~FileLock() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int descriptor_;
};

std::filesystem::path file_of_environment() {
  const auto folder = [](const char* name) -> std::filesystem::path {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
  };
  if (const auto given = folder("CINNABAR_CACHE_DIR"); !given.empty()) return given / "choices.txt";
  if (const auto xdg = folder("XDG_CACHE_HOME"); xdg.is_absolute()) return xdg / "cinnabar" / "choices.txt";
  if (const auto home = folder("HOME"); !home.empty()) {
    return home / ".cache" / "cinnabar" / "choices.txt";
  }
  return {};
}

}  // namespace

std::string ChoiceCache::choose(const std::string& key, const std::vector<std::string>& allowed,
                                const std::function<std::string()>& measure) {
  std::string choice;
  if (find(key, allowed, choice)) return choice;
  const std::lock_guard measuring(measuring_);
  if (find(key, allowed, choice)) return choice;  // another thread was first
  choice = measure();
  Choices merged;
  if (!file_.empty()) {
    std::error_code ignored;
    std::filesystem::create_directories(file_.parent_path(), ignored);
    const FileLock lock(file_);
    merged = read();
    const auto other = merged.find(key);
    if (other != merged.end() && std::find(allowed.begin(), allowed.end(), other->second) != allowed.end()) {
      choice = other->second;  // another process was first
    } else {
      merged[key] = choice;
      write(merged);
    }
  }
  const std::lock_guard reading(reading_);
  for (auto& [other_key, other_choice] : merged) choices_.try_emplace(other_key, other_choice);
  choices_[key] = choice;
  return choice;
}

bool ChoiceCache::find(const std::string& key, const std::vector<std::string>& allowed, std::string& choice) {
  const std::lock_guard reading(reading_);
  if (!was_read_) {
    choices_ = read();
    was_read_ = true;
  }
  const auto found = choices_.find(key);
  if (found == choices_.end()) return false;
  choice = found->second;
  return std::find(allowed.begin(), allowed.end(), choice) != allowed.end();
}

ChoiceCache::Choices ChoiceCache::read() const {
  Choices choices;
  std::ifstream file(file_);
  std::string line;
  if (!std::getline(file, line) || line != kHeader) return choices;
  while (std::getline(file, line)) {
    const std::size_t space = line.find(' ');
    if (space == 0 || space >= line.size() - 1 || file.eof()) continue;  // the last line lacks its end
    choices[line.substr(space + 1)] = line.substr(0, space);
  }
  return choices;
}

void ChoiceCache::write(const Choices& choices) const {
  std::filesystem::path temporary = file_;
  temporary += detail::concat(".", ::getpid(), ".tmp");
  {
    std::ofstream file(temporary);
    file << kHeader << '\n';
    for (const auto& [key, choice] : choices) file << choice << ' ' << key << '\n';
    file.close();
    if (file && ::rename(temporary.c_str(), file_.c_str()) == 0) return;
  }
  ::unlink(temporary.c_str());
}

ChoiceCache& choice_cache() {
  static ChoiceCache cache(file_of_environment());
  return cache;
}

}  // namespace cinnabar
