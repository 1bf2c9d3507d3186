#include "autograd/gradcheck.hpp"

#include <cmath>
#include <cstdint>
#include <sstream>

#include "engine/random.hpp"
#include "kernels/elementwise.hpp"

namespace cinnabar {

namespace {

/// Fixed weights in +-[0.5, 1.5) for output `stream`: none is near zero, so no entry goes unseen.
Tensor random_weights(const Tensor& output, std::uint64_t stream) {
  std::vector<double> values(static_cast<std::size_t>(output.numel()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const PhiloxWords words = philox_4x32_10(20, stream, i);
    const double magnitude = 0.5 + static_cast<double>(uniform_from_bits(words.word[0]));
    values[i] = (words.word[1] & 1u) != 0 ? magnitude : -magnitude;
  }
  return Tensor::from(values, output.shape());
}

double dot_on_host(const Tensor& a, const Tensor& b) {
  const std::vector<double> x = a.to_vector<double>();
  const std::vector<double> y = b.to_vector<double>();
  double sum = 0.0;
  for (std::size_t i = 0; i < x.size(); ++i) sum += x[i] * y[i];
  return sum;
}

std::vector<Variable> as_variables(const std::vector<Tensor>& inputs, bool requires_grad) {
  std::vector<Variable> variables;
  for (const Tensor& input : inputs)
    variables.emplace_back(input, requires_grad && is_floating(input.dtype()));
  return variables;
}

/// sum_k <w_k, output_k>; outputs without a gradient take no part.
double projection(const Differentiable& fn, const std::vector<Tensor>& inputs,
                  const std::vector<Tensor>& weights) {
  const NoGrad no_grad;
  const std::vector<Variable> outputs = fn(as_variables(inputs, false));
  double sum = 0.0;
  for (std::size_t k = 0; k < weights.size(); ++k) {
    if (weights[k].defined()) sum += dot_on_host(outputs[k].value(), weights[k]);
  }
  return sum;
}

}  // namespace

GradcheckResult gradcheck(const Differentiable& fn, const std::vector<Tensor>& given,
                          const GradcheckOptions& options) {
  std::vector<Tensor> inputs;
  for (const Tensor& input : given) {
    CINNABAR_CHECK(!is_floating(input.dtype()) || (input.dtype() == DType::f64 && input.device().is_cpu()),
                   "gradcheck", "needs f64 inputs on the CPU, got ", input);
    inputs.push_back(input.clone());
  }
  const std::vector<Variable> variables = as_variables(inputs, true);
  std::vector<Variable> results;
  std::vector<Tensor> weights;
  std::vector<Tensor> seeds;
  for (const Variable& output : fn(variables)) {
    weights.push_back(output.requires_grad() ? random_weights(output.value(), weights.size()) : Tensor{});
    if (!output.requires_grad()) continue;
    results.push_back(output);
    seeds.push_back(weights.back());
  }
  CINNABAR_CHECK(!results.empty(), "gradcheck", "no output depends on the inputs");
  backward(results, seeds);

  GradcheckResult result;
  std::ostringstream message;
  std::int64_t tried = 0;
  std::int64_t wrong = 0;
  for (std::size_t input = 0; input < inputs.size(); ++input) {
    if (!variables[input].requires_grad()) continue;
    const Tensor& gradient = variables[input].grad();
    const std::int64_t count = inputs[input].numel();
    const std::vector<double> analytic = gradient.defined()
                                             ? gradient.to_vector<double>()
                                             : std::vector<double>(static_cast<std::size_t>(count), 0.0);
    const bool all = options.max_entries <= 0 || options.max_entries >= count;
    const std::int64_t chosen = all ? count : options.max_entries;
    double* values = inputs[input].data<double>();
    for (std::int64_t k = 0; k < chosen; ++k) {
      const std::int64_t entry = all ? k : (2 * k + 1) * count / (2 * chosen);
      const double original = values[entry];
      values[entry] = original + options.eps;
      const double above = projection(fn, inputs, weights);
      values[entry] = original - options.eps;
      const double below = projection(fn, inputs, weights);
      values[entry] = original;
      const double numeric = (above - below) / (2.0 * options.eps);
      const double found = analytic[static_cast<std::size_t>(entry)];
      const double error = std::abs(found - numeric);
      ++tried;
      if (!(error <= result.worst_error)) result.worst_error = error;
      if (error <= options.atol + options.rtol * std::abs(numeric)) continue;
      if (++wrong <= 5) {
        message << "input " << input << ' ' << inputs[input].shape() << " entry " << entry << ": analytic "
                << found << ", numeric " << numeric << '\n';
      }
    }
  }
  result.passed = wrong == 0;
  message << wrong << " of " << tried << " entries differ, largest error " << result.worst_error;
  result.message = message.str();
  return result;
}

GradcheckResult gradcheck(const std::function<Variable(const std::vector<Variable>&)>& fn,
                          const std::vector<Tensor>& inputs, const GradcheckOptions& options) {
  const Differentiable many = [&fn](const std::vector<Variable>& variables) {
    return std::vector<Variable>{fn(variables)};
  };
  return gradcheck(many, inputs, options);
}

TaylorResult taylor_test(const std::function<Variable(const Variable&)>& functional, const Tensor& point,
                         const Tensor& direction, double first_step, int steps) {
  require_same_shape("taylor_test", point, direction);
  const Variable x(point.clone(), true);
  const Variable value = functional(x);
  const double at_point = value.value().item();
  value.backward();
  CINNABAR_CHECK(x.grad().defined(), "taylor_test", "the functional has no gradient in its argument");
  const double slope = dot_on_host(x.grad(), direction);

  TaylorResult result;
  const NoGrad no_grad;
  double step = first_step;
  for (int k = 0; k < steps; ++k, step *= 0.5) {
    Tensor moved = point.clone();
    elementwise_on(point.device()).axpy(step, direction, moved);
    const double change = functional(Variable(moved)).value().item() - at_point;
    result.steps.push_back(step);
    result.first.push_back(std::abs(change));
    result.second.push_back(std::abs(change - step * slope));
  }
  std::ostringstream table;
  table << "step, first remainder (order), second remainder (order)\n";
  for (std::size_t k = 0; k < result.steps.size(); ++k) {
    if (k > 0) {
      result.first_orders.push_back(std::log2(result.first[k - 1] / result.first[k]));
      result.second_orders.push_back(std::log2(result.second[k - 1] / result.second[k]));
    }
    table << result.steps[k] << ", " << result.first[k] << " (" << (k > 0 ? result.first_orders.back() : 0.0)
          << "), " << result.second[k] << " (" << (k > 0 ? result.second_orders.back() : 0.0) << ")\n";
  }
  result.message = table.str();
  return result;
}

}  // namespace cinnabar
