#include "registration/cohort.hpp"

#include <algorithm>
#include <fstream>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "engine/error.hpp"
#include "registration/input_file.hpp"

namespace cinnabar::registration {

namespace {

/// The cells of a line; one in double quotes may hold commas.
std::vector<std::string> cells_of(const std::string& line) {
  std::vector<std::string> cells(1);
  bool quoted = false;
  for (const char c : line) {
    if (c == '"') {
      quoted = !quoted;
    } else if (c == ',' && !quoted) {
      cells.emplace_back();
    } else {
      cells.back() += c;
    }
  }
  std::transform(cells.begin(), cells.end(), cells.begin(), trimmed);
  return cells;
}

/// "na01" of "scans/na01.nii.gz".
std::string stem(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  return name.substr(0, name.find('.'));
}

bool is_plain(const std::string& name) {
  constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-";
  return !name.empty() && name.front() != '.' && name.find_first_not_of(kLetters) == std::string::npos;
}

/// One list while it is read; errors name the file and the present line.
class PairList {
 public:
  explicit PairList(const std::filesystem::path& path)
      : path_(path), file_(open_text(path, "the list of pairs")) {}

  std::vector<PairEntry> read() {
    std::optional<std::vector<std::string>> header = next();
    if (!header) fail_input(path_.string(), ": the list of pairs is empty");
    for (std::size_t i = 0; i < header->size(); ++i) add_column((*header)[i], i);
    for (const char* needed : {"moving", "fixed"}) {
      if (!column_.contains(needed)) {
        complain("the header must name the columns moving and fixed (and may name name and split)");
      }
    }
    std::vector<PairEntry> pairs;
    while (const auto cells = next()) pairs.push_back(entry(*cells));
    if (pairs.empty()) complain("there is no pair below the header");
    return pairs;
  }

 private:
  template <class... Parts>
  [[noreturn]] void complain(const Parts&... parts) const {
    fail_input(path_.string(), ":", line_, ": ", parts...);
  }

  std::optional<std::vector<std::string>> next() {
    for (std::string line; std::getline(file_, line);) {
      ++line_;
      if (line_ == 1 && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);  // as Excel begins UTF-8
      const std::string content = trimmed(line);
      if (!content.empty() && content.front() != '#') return cells_of(content);
    }
    return std::nullopt;
  }

  void add_column(const std::string& name, std::size_t index) {
    if (name != "moving" && name != "fixed" && name != "name" && name != "split") {
      complain("unknown column '", name, "': the columns are moving, fixed, name and split");
    }
    if (!column_.emplace(name, index).second) complain("the column ", name, " comes twice");
  }

  std::string cell(const std::vector<std::string>& cells, const char* column) const {
    const auto found = column_.find(column);
    return found == column_.end() ? std::string() : cells[found->second];
  }

  std::filesystem::path scan(const std::vector<std::string>& cells, const char* column) const {
    const std::string text = cell(cells, column);
    if (text.empty()) complain("the ", column, " scan is missing");
    const std::filesystem::path path = path_.parent_path() / text;
    if (!std::filesystem::is_regular_file(path)) {
      complain("the ", column, " scan ", path.string(), " does not exist: mend its path or remove the line");
    }
    return path;
  }

  PairEntry entry(const std::vector<std::string>& cells) {
    if (cells.size() != column_.size()) {
      complain(cells.size(), " cells where the header has ", column_.size());
    }
    PairEntry pair;
    pair.moving = scan(cells, "moving");
    pair.fixed = scan(cells, "fixed");
    pair.name = cell(cells, "name");
    if (pair.name.empty()) pair.name = stem(pair.moving) + "_to_" + stem(pair.fixed);
    if (!is_plain(pair.name)) complain("the name '", pair.name, "' may have letters, digits, _ . and - only");
    if (pair.name == "momenta" || pair.name == "pairs") {
      complain("the name '", pair.name,
               "' is that of a file which every folder of pairs has: choose another");
    }
    if (!names_.insert(pair.name).second) complain("the name ", pair.name, " comes twice");
    const std::string split = cell(cells, "split");
    if (split == "training") {
      pair.split = PairSplit::training;
    } else if (split == "validation") {
      pair.split = PairSplit::validation;
    } else if (!split.empty()) {
      complain("the split is '", split, "': it may be training, validation or empty");
    }
    return pair;
  }

  std::filesystem::path path_;
  std::ifstream file_;
  int line_ = 0;
  std::map<std::string, std::size_t> column_;
  std::set<std::string> names_;
};

}  // namespace

std::string trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r";
  const std::size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(kBlank) + 1 - first));
}

std::vector<PairEntry> read_pairs(const std::filesystem::path& path) {
  return PairList(path).read();
}

}  // namespace cinnabar::registration
