#pragma once

#include <filesystem>
#include <fstream>

namespace cinnabar::registration {

/// Opens a text file, `what` it is, to be read. Throws InputError where that cannot be done, and for pipes
/// and devices, which might be waited for without end.
std::ifstream open_text(const std::filesystem::path& path, const char* what);

}  // namespace cinnabar::registration
