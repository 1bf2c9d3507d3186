#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <vector>

namespace cinnabar::apps {

/// True when `name` is a subcommand of `app`.
bool has_subcommand(const CLI::App& app, const std::string& name);

/// Reads --config files as TOML. Keys are the long options' names without dashes. Keys at the top of the file
/// and in the table named after `command` (a subcommand, and one of its own: [train.quicksilver]) belong to
/// that subcommand; tables of other subcommands are skipped, so one file can serve several. Options given on
/// the command line win.
std::shared_ptr<CLI::Config> make_config_reader(const CLI::App& app, const std::vector<std::string>& command);

}  // namespace cinnabar::apps
