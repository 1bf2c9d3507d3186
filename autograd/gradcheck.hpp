#pragma once

#include <functional>
#include <string>
#include <vector>

#include "autograd/variable.hpp"

namespace cinnabar {

/// Whether a gradient agreed with differences of the function, and where it was worst.
struct GradcheckResult {
  bool passed = true;
  std::string message;
  double worst_error = 0.0;  ///< largest |analytic - numeric|

  explicit operator bool() const { return passed; }
};

struct GradcheckOptions {
  double eps = 1e-6;
  double atol = 1e-5;
  double rtol = 1e-3;
  /// Entries tried in each input; 0 means all. A subset is spread over the input by a fixed stride.
  std::int64_t max_entries = 0;
};

/// Compares the gradient of sum_k <w_k, output_k>, w_k random and fixed, with central differences in every
/// chosen entry of every input. Needs f64 inputs on the CPU; inputs of other dtypes than floating ones are
/// passed on without being differentiated.
using Differentiable = std::function<std::vector<Variable>(const std::vector<Variable>&)>;
GradcheckResult gradcheck(const Differentiable& fn, const std::vector<Tensor>& inputs,
                          const GradcheckOptions& options = {});
/// The same for a function with one output.
GradcheckResult gradcheck(const std::function<Variable(const std::vector<Variable>&)>& fn,
                          const std::vector<Tensor>& inputs, const GradcheckOptions& options = {});

/// Remainders of J(x + h d) along a direction for halving steps h. A right gradient makes the second one fall
/// as h^2 until rounding takes over.
struct TaylorResult {
  std::vector<double> steps;
  std::vector<double> first;          ///< |J(x + h d) - J(x)|
  std::vector<double> second;         ///< |J(x + h d) - J(x) - h <grad J(x), d>|
  std::vector<double> first_orders;   ///< log2 of the ratio of consecutive remainders: 1 when smooth
  std::vector<double> second_orders;  ///< 2 when the gradient is right
  std::string message;                ///< a table of the above
};

TaylorResult taylor_test(const std::function<Variable(const Variable&)>& functional, const Tensor& point,
                         const Tensor& direction, double first_step = 1e-2, int steps = 5);

}  // namespace cinnabar
