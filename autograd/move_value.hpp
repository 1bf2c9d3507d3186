#pragma once

#include "autograd/variable.hpp"

namespace cinnabar {

/// Replaces the value of a leaf by one of equal shape on any device and of any dtype, and drops its gradient.
/// Every copy of the Variable sees it; graphs made before keep the old value.
void move_value(const Variable& leaf, Tensor value);

}  // namespace cinnabar
