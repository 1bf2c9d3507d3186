#pragma once

#include "autograd/variable.hpp"
#include "kernels/dropout.hpp"

namespace cinnabar {

/// Drops elements with probability p and scales the others by 1 / (1 - p); kernels/dropout.hpp says which.
Variable dropout(const Variable& x, double p, const RandomSequence& sequence);

}  // namespace cinnabar
