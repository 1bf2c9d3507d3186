#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "kernels/lncc.hpp"

namespace cinnabar::apps {

/// An option that names a similarity of images: ssd, ncc or lncc.
CLI::Option* add_similarity(CLI::App& command, const std::string& name, std::string& similarity,
                            const std::string& description);

/// --lncc-radius, an int or an optional one.
template <class Radius>
CLI::Option* add_lncc_radius(CLI::App& command, Radius& radius) {
  return command.add_option("--lncc-radius", radius, "half width of the LNCC window, voxels")
      ->check(CLI::Range(1, kLargestLnccRadius));
}

}  // namespace cinnabar::apps
