#include <utility>

#include "autograd/variable.hpp"

namespace cinnabar {

namespace {

/// Fresh leaves with the values of the inputs, so that the recomputed graph ends here.
std::vector<Variable> local_inputs(const std::vector<Tensor>& values,
                                   const std::vector<bool>& requires_grad) {
  std::vector<Variable> leaves;
  for (std::size_t i = 0; i < values.size(); ++i) leaves.emplace_back(values[i], requires_grad[i]);
  return leaves;
}

}  // namespace

std::vector<Variable> checkpoint(std::function<std::vector<Variable>(const std::vector<Variable>&)> segment,
                                 const std::vector<Variable>& inputs) {
  std::vector<Tensor> values;
  std::vector<bool> requires_grad;
  for (const Variable& input : inputs) {
    values.push_back(input.value());
    requires_grad.push_back(input.requires_grad());
  }

  std::vector<Tensor> outputs;
  const std::int64_t unrecorded_before = unrecorded_ops();
  {
    const NoGrad no_grad;
    for (const Variable& output : segment(local_inputs(values, requires_grad)))
      outputs.push_back(output.value());
  }
  // A segment can need gradients through captured parameters alone. The graph only sees inputs, so such a
  // segment gets one extra input that wants a gradient and never receives one.
  std::vector<Variable> recorded_inputs = inputs;
  if (unrecorded_ops() != unrecorded_before) recorded_inputs.emplace_back(Tensor::zeros({}), true);

  const std::size_t input_count = recorded_inputs.size();
  return record(
      "checkpoint", std::move(outputs), recorded_inputs,
      [segment = std::move(segment), values = std::move(values), requires_grad = std::move(requires_grad),
       input_count](std::span<const Tensor> grad_outputs) {
        const RecordingScope recording(true);
        const std::vector<Variable> leaves = local_inputs(values, requires_grad);
        const std::vector<Variable> recomputed = segment(leaves);
        CINNABAR_CHECK(recomputed.size() == grad_outputs.size(), "checkpoint", "the segment returned ",
                       grad_outputs.size(), " outputs first and ", recomputed.size(), " when recomputed");
        std::vector<Variable> results;
        std::vector<Tensor> seeds;
        for (std::size_t i = 0; i < recomputed.size(); ++i) {
          if (!grad_outputs[i].defined() || !recomputed[i].requires_grad()) continue;
          results.push_back(recomputed[i]);
          seeds.push_back(grad_outputs[i]);
        }
        backward(results, seeds);
        std::vector<Tensor> gradients(input_count);
        for (std::size_t i = 0; i < leaves.size(); ++i) gradients[i] = leaves[i].grad();
        return gradients;
      });
}

}  // namespace cinnabar
