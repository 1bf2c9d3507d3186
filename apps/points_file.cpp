#include "apps/points_file.hpp"

#include <charconv>
#include <cmath>
#include <fstream>
#include <string_view>

#include "engine/error.hpp"
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

void append_number(std::string& text, double value) {
  char digits[32];
  const auto [end, error] = std::to_chars(std::begin(digits), std::end(digits), value);
  text.append(digits, error == std::errc() ? end : digits);
}

}  // namespace

PointTable read_points(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::error_code ignored;
  if (!file || !std::filesystem::is_regular_file(path, ignored)) {
    fail_input("cannot read '", path.string(),
               "': there is no such file or it is not readable; check the name");
  }
  PointTable table;
  std::size_t number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    std::string_view rest = line;
    skip_blanks(rest);
    if (rest.empty()) continue;
    registration::Point point{};
    if (take_number(rest, point[0]) && take_number(rest, point[1]) && take_number(rest, point[2])) {
      table.points.push_back(point);
      rest = rest.substr(0, rest.find_last_not_of(kBlanks) + 1);
      table.rest.push_back(rest.empty() ? std::string() : std::string(1, ',').append(rest));
    } else if (number == 1) {
      table.header = line.substr(0, line.find_last_not_of(kBlanks) + 1);
    } else {
      fail_input("cannot read '", path.string(), "': line ", number, " does not start with three numbers");
    }
  }
  if (table.points.empty())
    fail_input("cannot read '", path.string(), "': it holds no points (lines of x,y,z)");
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
