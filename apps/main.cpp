#include <omp.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <new>
#include <string>
#include <vector>

#include "apps/commands.hpp"
#include "apps/config_file.hpp"
#include "apps/number_checks.hpp"
#include "engine/error.hpp"
#include "registration/outputs.hpp"

namespace cinnabar::apps {

namespace {

constexpr int kFailure = 1;
constexpr int kUsage = 2;
constexpr int kInterrupted = 130;  // 128 + SIGINT, as shells report it

CommonOptions& mutable_options() {
  static CommonOptions options;
  return options;
}

std::string& mutable_command_line() {
  static std::string line;
  return line;
}

/// One line on stderr, whatever the message holds.
int report(std::string message, int code) {
  std::replace_if(
      message.begin(), message.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
  std::fprintf(stderr, "cinnabar: %s\n", message.c_str());
  return code;
}

/// The words after the program's name, with the long options that NiftyReg's users write with one dash.
std::vector<std::string> arguments(int count, char** words) {
  std::vector<std::string> result;
  for (int i = 1; i < count; ++i) {
    const std::string word = words[i];
    const bool single_dash = word == "-ref" || word == "-flo" || word == "-res";
    result.push_back(single_dash ? "-" + word : word);
  }
  return result;
}

/// The names among the words that lead to a subcommand: {"train", "quicksilver"}.
std::vector<std::string> command_in(const CLI::App& app, const std::vector<std::string>& words) {
  std::vector<std::string> command;
  const CLI::App* at = &app;
  for (const std::string& word : words) {
    if (!has_subcommand(*at, word)) continue;
    command.push_back(word);
    at = at->get_subcommand(word);
  }
  return command;
}

int parse_and_run(CLI::App& app, std::vector<std::string> words) {
  const std::vector<std::string> command = command_in(app, words);
  app.config_formatter(make_config_reader(app, command));
  std::string help = "; see cinnabar ";
  for (const std::string& name : command) help += name + " ";
  help += "--help";
  if (command.empty() && !words.empty() && !words.front().starts_with("-")) {
    return report("there is no subcommand '" + words.front() + "'" + help, kUsage);
  }
  try {
    std::reverse(words.begin(), words.end());
    app.parse(words);
    return 0;
  } catch (const CLI::Success& request) {
    return app.exit(request);  // --help and --version
  } catch (const CLI::FileError& error) {
    return report(error.what(), kFailure);
  } catch (const CLI::ParseError& error) {
    return report(error.what() + help, kUsage);
  } catch (const registration::InterruptedRun& error) {
    return report(error.what(), kInterrupted);
  } catch (const InputError& error) {
    return report(error.what(), kFailure);
  } catch (const std::bad_alloc&) {
    return report("out of memory; close other programs or use smaller images", kFailure);
  } catch (const std::exception& error) {
    const std::string message = error.what();
    const bool memory = message.find("out of memory") != std::string::npos;
    return report(
        memory ? message + "; close other programs, use smaller images or a coarser --resolution" : message,
        kFailure);
  }
}

/// What a result is worth that could not be printed.
int finish_output(int code) {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
  return code != 0
             ? code
             : report("cannot write to the standard output: its disk is full or its reader gone", kFailure);
}

int run(int count, char** words) {
  mutable_command_line() = "cinnabar";
  for (int i = 1; i < count; ++i) mutable_command_line() += " " + registration::shell_quoted(words[i]);
  CommonOptions& options = mutable_options();
  CLI::App app("Learned and optimised registration of 3-D images.", "cinnabar");
  app.set_version_flag("--version", std::string("cinnabar ") + CINNABAR_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  app.get_formatter()->column_width(34);
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.set_config("--config", "", "TOML file with the options of a subcommand")
      ->check(CLI::Validator(
          [](const std::string& name) {
            std::error_code ignored;
            const bool special =
                std::filesystem::exists(name, ignored) && !std::filesystem::is_regular_file(name, ignored);
            return special ? "'" + name + "' is not a regular file" : std::string();
          },
          ""));
  app.add_option("--threads", options.threads, "CPU threads (0: all)")->check(kNonNegative);
  app.add_flag("--quiet,-q", options.quiet, "Print nothing but errors and results");
  app.add_flag("--verbose,-v", options.verbose, "Print more");
  app.parse_complete_callback([&options] {
    if (options.threads > 0) omp_set_num_threads(options.threads);
  });
  add_register(app);
  add_apply(app);
  add_jacobian(app);
  add_measure(app);
  add_convert(app);
  add_info(app);
  add_selftest(app);
  add_mirror(app);
  add_momenta(app);
  add_train(app);
  return finish_output(parse_and_run(app, arguments(count, words)));
}

}  // namespace

const CommonOptions& common_options() {
  return mutable_options();
}

const std::string& command_line() {
  return mutable_command_line();
}

}  // namespace cinnabar::apps

int main(int count, char** words) {
  std::signal(SIGXFSZ, SIG_IGN);  // writing beyond a limit of the shell's is an error like a full disk
  return cinnabar::apps::run(count, words);
}
