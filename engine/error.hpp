#pragma once

#include <source_location>
#include <sstream>
#include <stdexcept>
#include <string>

namespace cinnabar {

/// Every failure the engine reports. The text names the operation, the shapes involved and the place.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// A failure the user can mend: one line that names the file or option and the remedy, no source location.
class InputError : public Error {
 public:
  using Error::Error;
};

namespace detail {

template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

}  // namespace detail

/// Throws Error with "op: message (file:line)".
[[noreturn]] void fail(const char* op, const std::string& message,
                       std::source_location where = std::source_location::current());

/// Throws InputError made of the given parts.
template <class... Parts>
[[noreturn]] void fail_input(const Parts&... parts) {
  throw InputError(detail::concat(parts...));
}

}  // namespace cinnabar

/// Checks a condition that user input can break; the remaining arguments are streamed into the message.
#define CINNABAR_CHECK(condition, op, ...)                           \
  do {                                                               \
    if (!(condition)) [[unlikely]] {                                 \
      ::cinnabar::fail(op, ::cinnabar::detail::concat(__VA_ARGS__)); \
    }                                                                \
  } while (false)
