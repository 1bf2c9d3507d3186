#pragma once

#include "autograd/epilogue.hpp"
#include "kernels/conv3d.hpp"

namespace cinnabar {

/// Convolution of `input` [N, C, D, H, W] with `weight` [O, C / groups, kD, kH, kW], ended by an epilogue
/// over the O channels (bias, activation, dropout); differentiable in input, weight and the epilogue's
/// inputs. Shapes and rules are those of kernels/conv3d.hpp.
Variable conv3d(const Variable& input, const Variable& weight, const EpilogueInputs& epilogue = {},
                const Conv3dOptions& options = {});

/// The transposed convolution: `weight` [C, O / groups, kD, kH, kW], `output_padding` more positions at the
/// upper ends of D, H, W.
Variable conv_transpose3d(const Variable& input, const Variable& weight, const EpilogueInputs& epilogue = {},
                          const Conv3dOptions& options = {},
                          const std::array<std::int64_t, 3>& output_padding = {0, 0, 0});

}  // namespace cinnabar
