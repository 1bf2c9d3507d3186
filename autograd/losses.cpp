#include "autograd/losses.hpp"

#include "autograd/elementwise.hpp"
#include "autograd/reduce.hpp"

namespace cinnabar {

namespace {

Variable difference(const char* op, const Variable& input, const Variable& target) {
  require_same_shape(op, input.value(), target.value());
  return input - target;
}

/// sum(terms), or terms or their mean, where `total` makes the sum from the terms' arguments in one pass.
Variable averaged(const Variable& total, const Variable& like, LossReduction reduction) {
  if (reduction == LossReduction::sum) return total;
  CINNABAR_CHECK(like.value().numel() > 0, "loss", "the mean of no elements");
  return total / static_cast<double>(like.value().numel());
}

}  // namespace

Variable l1_loss(const Variable& input, const Variable& target, LossReduction reduction) {
  const Variable d = difference("l1_loss", input, target);
  if (reduction == LossReduction::none) return abs(d);
  return averaged(norm(d, 1), d, reduction);
}

Variable mse_loss(const Variable& input, const Variable& target, LossReduction reduction) {
  const Variable d = difference("mse_loss", input, target);
  if (reduction == LossReduction::none) return square(d);
  return averaged(dot(d, d), d, reduction);
}

Variable smooth_l1_loss(const Variable& input, const Variable& target, double beta, LossReduction reduction) {
  CINNABAR_CHECK(beta > 0.0, "smooth_l1_loss", "beta ", beta, " must be positive");
  const Variable d = abs(difference("smooth_l1_loss", input, target));
  const Variable inner = clamp(d, 0.0, beta);  // c (d - c / 2) / beta is both branches at once
  const Variable terms = inner * (d - inner * 0.5) / beta;
  return reduction == LossReduction::none ? terms : averaged(sum(terms), terms, reduction);
}

Variable dice_loss(const Variable& probabilities, const Variable& target, double smooth) {
  require_same_shape("dice_loss", probabilities.value(), target.value());
  CINNABAR_CHECK(probabilities.value().rank() >= 3 && probabilities.value().numel() > 0, "dice_loss",
                 "needs [N, C, ...], got ", probabilities.value());
  CINNABAR_CHECK(smooth >= 0.0, "dice_loss", "smooth ", smooth, " is negative");
  Axes space;
  for (int axis = 2; axis < probabilities.value().rank(); ++axis) space.push_back(axis);
  const Variable both = sum(probabilities * target, space);
  const Variable either = sum(probabilities, space) + sum(target, space);
  return 1.0 - mean((2.0 * both + smooth) / (either + smooth));
}

}  // namespace cinnabar
