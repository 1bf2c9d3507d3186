#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/tensor.hpp"

namespace cinnabar {

/// A tensor in the graph of a computation. Copies share value and gradient. Gradients flow to every Variable
/// made with `requires_grad` when `backward` is called on a result.
class Variable {
 public:
  struct State;

  Variable() = default;
  explicit Variable(Tensor value, bool requires_grad = false);
  explicit Variable(std::shared_ptr<State> state) : state_(std::move(state)) {}

  bool defined() const { return state_ != nullptr; }
  const Tensor& value() const;
  /// Replaces the value of a leaf (an optimiser's step). Shape, dtype and device must stay.
  void set_value(Tensor value);
  bool requires_grad() const;
  /// The accumulated gradient; undefined before the first backward, and always on results of ops.
  const Tensor& grad() const;
  void clear_grad();

  /// Reverse mode from this variable. The seed defaults to 1 and is needed when there is more than one
  /// element. Leaf gradients add up over calls. Frees the graph unless `retain_graph`.
  void backward(const Tensor& seed = {}, bool retain_graph = false) const;

  /// The same value cut off from the graph.
  Variable detach() const;

  const Shape& shape() const { return value().shape(); }
  Device device() const { return value().device(); }

  const std::shared_ptr<State>& state() const { return state_; }

 private:
  std::shared_ptr<State> state_;
};

/// Reverse mode from several results of one graph at once, each with its seed (undefined: 1 for a scalar).
void backward(const std::vector<Variable>& results, const std::vector<Tensor>& seeds,
              bool retain_graph = false);

/// The gradient closure of an op: from the gradients of its outputs (undefined where nothing arrived) to the
/// gradients of its inputs (undefined where there is none). It captures tensors by value, never its outputs'
/// Variables. It runs under NoGrad.
using Backward = std::function<std::vector<Tensor>(std::span<const Tensor> grad_outputs)>;

/// Adds an op to the graph and returns its outputs. When no input requires a gradient, or under NoGrad, the
/// closure is dropped and the outputs are constants. `op` is a string literal.
std::vector<Variable> record(const char* op, std::vector<Tensor> outputs, const std::vector<Variable>& inputs,
                             Backward backward);

/// `record` for an op with one output: the closure takes that output's gradient.
Variable record_one(const char* op, Tensor output, const std::vector<Variable>& inputs,
                    std::function<std::vector<Tensor>(const Tensor& grad_output)> backward);

/// Sets whether this thread records, while it lives.
class RecordingScope {
 public:
  explicit RecordingScope(bool recording);
  ~RecordingScope();
  RecordingScope(const RecordingScope&) = delete;
  RecordingScope& operator=(const RecordingScope&) = delete;

 private:
  bool previous_;
};

/// While one lives, this thread records nothing.
class NoGrad : public RecordingScope {
 public:
  NoGrad() : RecordingScope(false) {}
};
bool grad_enabled();

/// Runs `segment` without keeping its intermediate values and recomputes it during backward (Griewank and
/// Walther, "Revolve", 2000, with one level). The segment must be a pure function of its inputs and of the
/// parameters it captures; both receive gradients.
std::vector<Variable> checkpoint(std::function<std::vector<Variable>(const std::vector<Variable>&)> segment,
                                 const std::vector<Variable>& inputs);

/// Number of ops this thread left unrecorded because of NoGrad although an input required a gradient.
std::int64_t unrecorded_ops();

}  // namespace cinnabar
