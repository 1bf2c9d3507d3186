#include "kernels/gradient_penalty.hpp"

#include <cmath>

namespace cinnabar {

PenaltyCall penalty_call(const Tensor& field, const VoxelSpacing& spacing, const Tensor& beside) {
  constexpr const char* kOp = "gradient_penalty";
  PenaltyCall call{field_shape(kOp, "field", field), {0, 0, 0}, 0};
  require_same_device(kOp, field, beside);
  CINNABAR_CHECK(beside.numel() == 1 && beside.dtype() == field.dtype(), kOp, "the loss must be one ",
                 field.dtype(), ", got ", beside);
  call.shape.n *= call.shape.c;
  call.shape.c = 1;
  const std::int64_t extents[3] = {call.shape.w, call.shape.h, call.shape.d};
  int axes = 0;
  for (int axis = 0; axis < 3; ++axis) {
    const double distance = spacing[static_cast<std::size_t>(axis)];
    CINNABAR_CHECK(std::isfinite(distance) && distance > 0.0, kOp, "spacing ", distance, " must be positive");
    if (extents[axis] == 1) continue;
    ++axes;
    const auto extent = static_cast<double>(extents[axis]);
    call.weight[axis] = extent / (extent - 1.0) / (distance * distance);  // numel over number of pairs
  }
  if (axes > 0) call.scale = 1.0 / (axes * static_cast<double>(field.numel()));
  return call;
}

}  // namespace cinnabar
