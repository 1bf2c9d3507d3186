#pragma once

#include "autograd/cross_entropy.hpp"
#include "autograd/gradient_penalty.hpp"
#include "autograd/similarity.hpp"
#include "autograd/variable.hpp"

namespace cinnabar {

// Every loss for training: those below, cross_entropy_loss, the image losses ncc_loss and lncc_loss (means
// over the batch) and the smoothness of fields, gradient_penalty. Those below compare a prediction with a
// target of equal shape by PyTorch's conventions and are differentiable in both.

/// |input - target|; the slope where both are equal is 0.
Variable l1_loss(const Variable& input, const Variable& target,
                 LossReduction reduction = LossReduction::mean);
/// (input - target)^2.
Variable mse_loss(const Variable& input, const Variable& target,
                  LossReduction reduction = LossReduction::mean);
/// d^2 / (2 beta) where d = |input - target| is below beta, else d - beta / 2.
Variable smooth_l1_loss(const Variable& input, const Variable& target, double beta = 1.0,
                        LossReduction reduction = LossReduction::mean);

/// Soft Dice loss of probabilities and target [N, C, ...]: the mean over images and channels of
/// 1 - (2 sum p t + smooth) / (sum p + sum t + smooth) (Milletari et al., 3DV 2016, with plain sums below).
Variable dice_loss(const Variable& probabilities, const Variable& target, double smooth = 1e-5);

}  // namespace cinnabar
