#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace cinnabar::registration {

/// A table of a report: the header may be empty; rows may be shorter than it.
struct ReportTable {
  std::string title;
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;
};

/// One page about one run.
struct Report {
  std::string title;
  std::string subtitle;
  std::vector<std::byte> mosaic_png;  ///< may be empty
  std::vector<ReportTable> tables;
  std::vector<std::pair<std::string, std::string>> commands;  ///< what it is for, the command line
};

/// The page as HTML that needs no other file: style and picture are inside.
std::string render_report(const Report& report);

/// Renders and writes under a temporary name, then renames.
void write_report(const std::filesystem::path& path, const Report& report);

}  // namespace cinnabar::registration
