#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "registration/matrix4.hpp"

namespace cinnabar::apps {

/// A table of points: x, y, z in the first three columns, anything after them is kept as text. A first line
/// that does not start with a number is a header.
struct PointTable {
  std::string header;
  std::vector<registration::Point> points;
  std::vector<std::string> rest;  ///< per point, with its leading comma, or empty
};

/// Reads columns separated by commas, semicolons, tabs or blanks. Throws InputError naming file and line.
PointTable read_points(const std::filesystem::path& path);

/// Writes comma-separated columns under a temporary name and renames.
void write_points(const std::filesystem::path& path, const PointTable& table);

}  // namespace cinnabar::apps
