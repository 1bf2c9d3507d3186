#pragma once

#include "autograd/variable.hpp"
#include "kernels/cross_entropy.hpp"

namespace cinnabar {

/// How the terms of a loss become its value.
enum class LossReduction { none, sum, mean };

/// Cross entropy of logits [N, C, ...] and labels i64 [N, ...]; conventions of kernels/cross_entropy.hpp. The
/// mean divides by the sum of the labels' class weights (NaN where every label is ignored). Labels and class
/// weights are constants.
Variable cross_entropy_loss(const Variable& logits, const Tensor& labels, const Tensor& class_weight = {},
                            LossReduction reduction = LossReduction::mean,
                            const CrossEntropyOptions& options = {});

}  // namespace cinnabar
