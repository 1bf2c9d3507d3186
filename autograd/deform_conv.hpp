#pragma once

#include "autograd/epilogue.hpp"
#include "kernels/deform_conv.hpp"

namespace cinnabar {

/// Deformable convolution of `input` [N, C, (D,) H, W] with `weight` [O, C / groups, (kD,) kH, kW], every tap
/// moved by `offset` and, where `mask` is defined, multiplied by it; ended by an epilogue over the O channels
/// (bias, activation, dropout). Differentiable in all of them. Shapes and rules are those of
/// kernels/deform_conv.hpp.
Variable deform_conv(const Variable& input, const Variable& offset, const Variable& weight,
                     const Variable& mask = {}, const EpilogueInputs& epilogue = {},
                     const DeformConvOptions& options = {});

}  // namespace cinnabar
