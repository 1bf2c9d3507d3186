#pragma once

#include "autograd/variable.hpp"

namespace cinnabar {

/// x in another floating type; x itself where it has that type already. The gradient is cast back. f16 and
/// bf16 are types to store in: of all ops only cast takes them, and a result in them can be used once in a
/// graph, because their gradients cannot be added.
Variable cast(const Variable& x, DType dtype);

}  // namespace cinnabar
