#pragma once

#include <map>
#include <string>

#include "engine/tensor.hpp"

namespace cinnabar {

/// Tensors that belong together, by name: "moving", "target", "momentum".
using Batch = std::map<std::string, Tensor>;

}  // namespace cinnabar
