#pragma once

#include <string>
#include <string_view>

namespace cinnabar {

/// A text of an untrusted file for a message: short, on one line, without control characters.
std::string printable(std::string_view text);

}  // namespace cinnabar
