#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace cinnabar::registration {

/// Whether a pair teaches a network or judges it.
enum class PairSplit { unspecified, training, validation };

/// Two scans to register, one row of a list of pairs.
struct PairEntry {
  std::string name;  ///< of its files: letters, digits and _ . -
  std::filesystem::path moving;
  std::filesystem::path fixed;
  PairSplit split = PairSplit::unspecified;
};

/// Reads a list of pairs: comma-separated, with a header that names the columns `moving` and `fixed` and, if
/// wanted, `name` (default: MOVING_to_FIXED, of the files' names) and `split` (`training`, `validation` or
/// empty). Relative paths start at the list's folder; lines that are empty or start with # are skipped.
/// Throws InputError with file and line for anything else, for a name that comes twice and for a scan that
/// does not exist.
std::vector<PairEntry> read_pairs(const std::filesystem::path& path);

/// A cell or a line of a list without the blanks around it.
std::string trimmed(std::string_view text);

}  // namespace cinnabar::registration
