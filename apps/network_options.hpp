#pragma once

#include <CLI/CLI.hpp>

#include "engine/dtype.hpp"
#include "kernels/conv3d_precision.hpp"

namespace cinnabar::apps {

// Options of commands that compute with networks or write them. What they set must stay until the command is
// parsed.

/// --precision, of a network's convolutions.
void add_precision_option(CLI::App& command, Conv3dPrecision& precision);

/// --storage, of the weights in a file.
void add_storage_option(CLI::App& command, DType& storage);

}  // namespace cinnabar::apps
