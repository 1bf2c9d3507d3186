#pragma once

#include <CLI/CLI.hpp>

#include "kernels/conv3d_precision.hpp"

namespace cinnabar::apps {

/// Adds --precision, of a network's convolutions. `precision` must stay until the command is parsed.
void add_precision_option(CLI::App& command, Conv3dPrecision& precision);

}  // namespace cinnabar::apps
