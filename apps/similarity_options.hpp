#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace cinnabar::apps {

/// An option that names a similarity of images: ssd, ncc or lncc.
CLI::Option* add_similarity(CLI::App& command, const std::string& name, std::string& similarity,
                            const std::string& description);

/// --lncc-radius.
CLI::Option* add_lncc_radius(CLI::App& command, int& radius);

}  // namespace cinnabar::apps
