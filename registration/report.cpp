#include "registration/report.hpp"

#include <cstdint>
#include <string_view>

#include "registration/output_file.hpp"

namespace cinnabar::registration {

namespace {

constexpr std::string_view kStyle = R"(
:root { color-scheme: light dark; --ink: #1d2127; --soft: #5b6470; --line: #d9dde3; --page: #ffffff; --accent: #b3391f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --soft: #98a1ad; --line: #30363f; --page: #14161a; --accent: #f0795b; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 2.5rem auto;
       max-width: 76rem; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; margin: 0; } h1::before { content: ""; display: inline-block; width: .55em; height: .55em;
       background: var(--accent); border-radius: 50%; margin-right: .5em; }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; } p.subtitle { color: var(--soft); margin: .2rem 0 1.5rem; }
img { width: 100%; border-radius: 8px; display: block; }
.tables { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 0 2.5rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .28rem .8rem .28rem 0; border-bottom: 1px solid var(--line); vertical-align: top;
         overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; } td:first-child { color: var(--soft); }
pre { background: color-mix(in srgb, var(--ink) 6%, transparent); padding: .8rem 1rem; border-radius: 8px;
      white-space: pre-wrap; overflow-wrap: anywhere; margin: .3rem 0 1rem; }
)";

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

std::string base64(const std::vector<std::byte>& bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string result;
  result.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    const std::size_t count = bytes.size() - i < 3 ? bytes.size() - i : 3;
    for (std::size_t k = 0; k < 3; ++k) {
      group = group << 8 | (k < count ? std::to_integer<std::uint32_t>(bytes[i + k]) : 0u);
    }
    for (std::size_t k = 0; k < 4; ++k) {
      result += k <= count ? kDigits[group >> (18 - 6 * k) & 63u] : '=';
    }
  }
  return result;
}

std::string row_of(const std::vector<std::string>& cells, const std::string& tag) {
  std::string row = "<tr>";
  for (const std::string& cell : cells) row += "<" + tag + ">" + escaped(cell) + "</" + tag + ">";
  return row + "</tr>\n";
}

}  // namespace

std::string render_report(const Report& report) {
  std::string page =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>" +
      escaped(report.title) + "</title>\n<style>" + std::string(kStyle) + "</style>\n</head>\n<body>\n";
  page +=
      "<h1>" + escaped(report.title) + "</h1>\n<p class=\"subtitle\">" + escaped(report.subtitle) + "</p>\n";
  if (!report.mosaic_png.empty()) {
    page +=
        "<img alt=\"Planes of the fixed, moving and warped image, differences, deformed grid and log "
        "Jacobian\" "
        "src=\"data:image/png;base64," +
        base64(report.mosaic_png) + "\">\n";
  }
  page += "<div class=\"tables\">\n";
  for (const ReportTable& table : report.tables) {
    page += "<section>\n<h2>" + escaped(table.title) + "</h2>\n<table>\n";
    if (!table.header.empty()) page += row_of(table.header, "th");
    for (const auto& row : table.rows) page += row_of(row, "td");
    page += "</table>\n</section>\n";
  }
  page += "</div>\n";
  for (const auto& [purpose, command] : report.commands) {
    page += "<h2>" + escaped(purpose) + "</h2>\n<pre>" + escaped(command) + "</pre>\n";
  }
  return page + "</body>\n</html>\n";
}

void write_report(const std::filesystem::path& path, const Report& report) {
  OutputFile file(path);
  file.write(render_report(report));
  file.commit();
}

}  // namespace cinnabar::registration
