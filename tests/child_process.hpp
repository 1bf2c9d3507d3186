#pragma once

#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

namespace cinnabar::testing {

/// The command line program of this build.
inline const std::string kProgram = std::string(CINNABAR_BINARY_DIR) + "/cinnabar";

/// What a command left behind; stderr is part of `output` unless the command line says otherwise.
struct CommandResult {
  int status = -1;
  std::string output;
};

inline std::string shell_quote(const std::string& text) {
  std::string quoted = "'";
  for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

inline CommandResult run_shell(const std::string& command) {
  CommandResult result;
  FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return result;
  std::array<char, 4096> buffer{};
  for (std::size_t got = 0; (got = std::fread(buffer.data(), 1, buffer.size(), pipe)) > 0;) {
    result.output.append(buffer.data(), got);
  }
  const int status = ::pclose(pipe);
  result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

inline CommandResult run_command(const std::vector<std::string>& words) {
  std::string command;
  for (const std::string& word : words) command += shell_quote(word) + " ";
  return run_shell(command + "2>&1");
}

/// A Python that has nibabel, or "" where there is none (the test then skips).
inline const std::string& python_with_nibabel() {
  static const std::string found = [] {
    for (const char* candidate : {"/usr/bin/python3", "python3"}) {
      const std::string probe = std::string(candidate) + " -c 'import nibabel, numpy' 2>/dev/null";
      if (run_shell(probe).status == 0) return std::string(candidate);
    }
    return std::string();
  }();
  return found;
}

inline std::filesystem::path oracle(const std::string& name) {
  return std::filesystem::path(CINNABAR_SOURCE_DIR) / "tests" / "oracles" / name;
}

}  // namespace cinnabar::testing
