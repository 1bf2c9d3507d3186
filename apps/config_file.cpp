#include "apps/config_file.hpp"

#include <toml++/toml.h>

#include <charconv>
#include <vector>

#include "engine/error.hpp"

namespace cinnabar::apps {

namespace {

std::string number_text(double value) {
  char text[32];
  const auto [end, error] = std::to_chars(std::begin(text), std::end(text), value);
  return error == std::errc() ? std::string(text, end) : std::string("nan");
}

/// One scalar of a TOML file as it would be typed; false for tables, dates and nested arrays.
bool scalar_text(const toml::node& node, std::string& text) {
  if (const auto* string = node.as_string()) {
    text = string->get();
  } else if (const auto* integer = node.as_integer()) {
    text = std::to_string(integer->get());
  } else if (const auto* real = node.as_floating_point()) {
    text = number_text(real->get());
  } else if (const auto* boolean = node.as_boolean()) {
    text = boolean->get() ? "true" : "false";
  } else {
    return false;
  }
  return true;
}

class TomlConfig : public CLI::ConfigTOML {
 public:
  TomlConfig(const CLI::App& app, std::vector<std::string> command)
      : app_(app), command_(std::move(command)) {}

  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override {
    toml::table root;
    try {
      root = toml::parse(input);
    } catch (const toml::parse_error& error) {
      fail_input("cannot read the --config file: ", error.description(), " (line ", error.source().begin.line,
                 ")");
    }
    std::vector<CLI::ConfigItem> entries;
    add_table(entries, root, app_, 0);
    return entries;
  }

 private:
  /// Adds what a table holds for the command; `app` is the subcommand it belongs to, that of the first
  /// `depth` names.
  void add_table(std::vector<CLI::ConfigItem>& entries, const toml::table& table, const CLI::App& app,
                 std::size_t depth) const {
    for (const auto& [key, node] : table) {
      const std::string name(key.str());
      const toml::table* inner = node.as_table();
      if (inner == nullptr) {
        const bool common = depth == 0 && app_.get_option_no_throw("--" + name) != nullptr;
        add_item(entries, common ? std::vector<std::string>() : command_, name, node);
      } else if (depth < command_.size() && name == command_[depth]) {
        add_table(entries, *inner, *app.get_subcommand(name), depth + 1);
      } else if (!has_subcommand(app, name)) {
        fail_input("the --config file has a table [", name, "], which is no subcommand");
      }
    }
  }

  static void add_item(std::vector<CLI::ConfigItem>& entries, const std::vector<std::string>& parents,
                       const std::string& name, const toml::node& node) {
    CLI::ConfigItem item;
    item.parents = parents;
    item.name = name;
    std::string text;
    if (const toml::array* array = node.as_array()) {
      for (const toml::node& element : *array) {
        if (!scalar_text(element, text)) fail_value(name);
        item.inputs.push_back(text);
      }
    } else {
      if (!scalar_text(node, text)) fail_value(name);
      item.inputs.push_back(text);
    }
    entries.push_back(item);
  }

  [[noreturn]] static void fail_value(const std::string& name) {
    fail_input("the --config file gives '", name,
               "' a value that is no text, number, true, false or list of them");
  }

  const CLI::App& app_;
  std::vector<std::string> command_;
};

}  // namespace

bool has_subcommand(const CLI::App& app, const std::string& name) {
  const auto known = app.get_subcommands([&](const CLI::App* command) { return command->check_name(name); });
  return !known.empty();
}

std::shared_ptr<CLI::Config> make_config_reader(const CLI::App& app,
                                                const std::vector<std::string>& command) {
  return std::make_shared<TomlConfig>(app, command);
}

}  // namespace cinnabar::apps
