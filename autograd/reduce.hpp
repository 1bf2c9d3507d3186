#pragma once

#include <vector>

#include "autograd/variable.hpp"

namespace cinnabar {

/// Reductions over a set of axes (empty: all of them; negative axes count from the innermost). With keepdim
/// the reduced axes stay with extent 1.
using Axes = std::vector<int>;

Variable sum(const Variable& x, const Axes& axes = {}, bool keepdim = false);
Variable mean(const Variable& x, const Axes& axes = {}, bool keepdim = false);
Variable prod(const Variable& x, const Axes& axes = {}, bool keepdim = false);
/// Largest and smallest values; the gradient is shared evenly by equal extremes.
Variable amax(const Variable& x, const Axes& axes = {}, bool keepdim = false);
Variable amin(const Variable& x, const Axes& axes = {}, bool keepdim = false);
/// Variance, divided by count - 1 when unbiased, else by count.
Variable var(const Variable& x, const Axes& axes = {}, bool unbiased = true, bool keepdim = false);
/// Standard deviation; its gradient is taken as 0 where it is 0.
Variable stddev(const Variable& x, const Axes& axes = {}, bool unbiased = true, bool keepdim = false);
/// sum |x| (p = 1) or sqrt(sum x^2) (p = 2); the gradient of the latter is taken as 0 where it is 0.
Variable norm(const Variable& x, int p = 2, const Axes& axes = {}, bool keepdim = false);
Variable logsumexp(const Variable& x, const Axes& axes = {}, bool keepdim = false);

Variable cumsum(const Variable& x, int axis);
Variable softmax(const Variable& x, const Axes& axes);
Variable log_softmax(const Variable& x, const Axes& axes);
/// Sum of x y over all elements, a scalar.
Variable dot(const Variable& x, const Variable& y);

/// Sums a gradient over the axes that were broadcast from `shape`.
Tensor sum_to(const Tensor& gradient, const Shape& shape);

}  // namespace cinnabar
