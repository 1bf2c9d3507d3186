#include "apps/points_file.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <string_view>

#include "engine/error.hpp"
#include "registration/input_file.hpp"
#include "registration/output_file.hpp"

namespace cinnabar::apps {

namespace {

constexpr std::string_view kBlanks = " \t\r";

void skip_blanks(std::string_view& text) {
  const std::size_t first = text.find_first_not_of(kBlanks);
  text.remove_prefix(first == std::string_view::npos ? text.size() : first);
}

/// Takes one number and the separator behind it off the front.
bool take_number(std::string_view& text, double& value) {
  skip_blanks(text);
  if (text.starts_with('+')) text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || !std::isfinite(value)) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  const bool separated = text.empty() || kBlanks.find(text.front()) != std::string_view::npos ||
                         text.front() == ',' || text.front() == ';';
  skip_blanks(text);
  if (text.starts_with(',') || text.starts_with(';')) text.remove_prefix(1);
  return separated;
}

bool starts_with_number(std::string_view text) {
  double value = 0.0;
  return std::from_chars(text.data(), text.data() + text.size(), value).ec != std::errc::invalid_argument;
}

/// A header that names x, y and z must name them first.
void require_coordinates_first(const std::filesystem::path& path, const std::string& header) {
  std::vector<std::string> names(1);
  for (const char c : header) {
    if (c == ',' || c == ';' || kBlanks.find(c) != std::string_view::npos) {
      if (!names.back().empty()) names.emplace_back();
    } else {
      names.back() += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
  }
  for (std::size_t axis = 0; axis < 3; ++axis) {
    const auto found = std::find(names.begin(), names.end(), std::string(1, "xyz"[axis]));
    if (found != names.end() && found - names.begin() != static_cast<std::ptrdiff_t>(axis)) {
      fail_input("cannot read the points '", path.string(), "': x, y and z must be its first three columns");
    }
  }
}

void append_number(std::string& text, double value) {
  char digits[32];
  const auto [end, error] = std::to_chars(std::begin(digits), std::end(digits), value);
  text.append(digits, error == std::errc() ? end : digits);
}

}  // namespace

PointTable read_points(const std::filesystem::path& path) {
  std::ifstream file = registration::open_text(path, "the points");
  PointTable table;
  std::size_t number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (number == 1 && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);  // as Excel begins UTF-8
    std::string_view rest = line;
    skip_blanks(rest);
    if (rest.empty()) continue;
    const bool may_be_header = table.points.empty() && table.header.empty() && !starts_with_number(rest);
    registration::Point point{};
    if (take_number(rest, point[0]) && take_number(rest, point[1]) && take_number(rest, point[2])) {
      table.points.push_back(point);
      rest = rest.substr(0, rest.find_last_not_of(kBlanks) + 1);
      table.rest.push_back(rest.empty() ? std::string() : std::string(1, ',').append(rest));
    } else if (may_be_header) {
      table.header = line.substr(0, line.find_last_not_of(kBlanks) + 1);
      require_coordinates_first(path, table.header);
    } else {
      fail_input("cannot read the points '", path.string(), "': line ", number,
                 " does not start with three numbers");
    }
  }
  if (table.points.empty())
    fail_input("cannot read the points '", path.string(), "': it holds no points (lines of x,y,z)");
  return table;
}

void write_points(const std::filesystem::path& path, const PointTable& table) {
  std::string text = table.header.empty() ? "" : table.header + "\n";
  for (std::size_t i = 0; i < table.points.size(); ++i) {
    for (std::size_t axis = 0; axis < 3; ++axis) {
      if (axis > 0) text += ',';
      append_number(text, table.points[i][axis]);
    }
    text += table.rest[i] + "\n";
  }
  registration::OutputFile file(path);
  file.write(text);
  file.commit();
}

}  // namespace cinnabar::apps
