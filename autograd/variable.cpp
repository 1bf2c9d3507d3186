#include "autograd/variable.hpp"

#include <algorithm>
#include <atomic>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "autograd/move_value.hpp"
#include "kernels/elementwise.hpp"

namespace cinnabar {

namespace {

struct Node;

/// Where the gradient of one input goes: to an output of another node, to a leaf, or nowhere. The expected
/// form of the gradient is kept here so that the input's value itself can be freed.
struct Edge {
  std::shared_ptr<Node> node;
  std::size_t output = 0;
  std::shared_ptr<Variable::State> leaf;
  Shape shape;
  DType dtype = DType::f32;
  Device device;
};

/// What a node owns. Freed nodes hand it to the innermost release() of the thread, so that a chain of any
/// length is destroyed by a loop, whatever the closures captured.
struct Links {
  std::vector<Edge> edges;
  Backward backward;
};
thread_local std::vector<Links>* releasing = nullptr;

void release(Links links) {
  if (!links.backward && links.edges.empty()) return;
  if (releasing != nullptr) {
    releasing->push_back(std::move(links));
    return;
  }
  std::vector<Links> waiting;
  waiting.push_back(std::move(links));
  releasing = &waiting;
  while (!waiting.empty()) {
    const Links last = std::move(waiting.back());
    waiting.pop_back();
  }
  releasing = nullptr;
}

/// One recorded op. `order` grows with creation: inputs always come before their op.
struct Node {
  const char* op = "";
  std::uint64_t order = 0;
  std::size_t outputs = 0;
  bool freed = false;
  Links links;

  Node() = default;
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;
  ~Node() { free(); }

  void free() {
    freed = true;
    release(std::exchange(links, {}));
  }
};

thread_local bool recording = true;
thread_local std::int64_t unrecorded = 0;

/// A running sum that copies only when a second term arrives, because closures may hand out shared tensors.
struct GradientSum {
  Tensor sum;
  bool owned = false;

  void add(const Tensor& term) {
    if (!sum.defined()) {
      sum = term;
      return;
    }
    const Elementwise& kernels = elementwise_on(term.device());
    if (owned) {
      kernels.axpy(1.0, term, sum);
      return;
    }
    Tensor total = Tensor::empty_like(sum);
    kernels.binary(Binary::add, sum, term, total);
    sum = std::move(total);
    owned = true;
  }
};

}  // namespace

struct Variable::State {
  Tensor value;
  Tensor grad;
  bool requires_grad = false;
  std::shared_ptr<Node> creator;
  std::size_t output = 0;
};

namespace {

Edge edge_to(const Variable& variable) {
  const Variable::State& state = *variable.state();
  Edge edge;
  edge.shape = state.value.shape();
  edge.dtype = state.value.dtype();
  edge.device = state.value.device();
  if (!state.requires_grad) return edge;
  edge.node = state.creator;
  edge.output = state.output;
  if (!edge.node) edge.leaf = variable.state();
  return edge;
}

/// 1 in the form of a one-element tensor, made on its device: a copy from the host would wait for the device.
Tensor one_like(const Tensor& value) {
  Tensor one = Tensor::zeros_like(value);
  elementwise_on(value.device()).unary(Unary::affine, one, 0.0, 1.0, one);
  return one;
}

void check_gradient(const char* op, std::size_t input, const Tensor& gradient, const Edge& edge) {
  CINNABAR_CHECK(
      gradient.shape() == edge.shape && gradient.dtype() == edge.dtype && gradient.device() == edge.device,
      op, "gradient of input ", input, " is ", gradient, " but the input is ", edge.dtype, ' ', edge.shape,
      " on ", edge.device);
}

/// One run of reverse mode over the part of the graph that the results depend on.
class Pass {
 public:
  void seed(const Edge& edge, const Tensor& gradient) {
    deliver(edge, gradient);
    if (edge.node) stack_.push_back(edge.node);
  }

  void run(bool retain_graph) {
    collect();
    const NoGrad no_grad;
    for (auto& node : order_) {
      propagate(*node);
      if (!retain_graph) node->free();
      node.reset();
    }
    for (auto& [key, leaf] : leaves_) add_to_leaf(*leaf.state, leaf.gradient);
  }

 private:
  struct Leaf {
    std::shared_ptr<Variable::State> state;
    GradientSum gradient;
  };

  void deliver(const Edge& edge, const Tensor& gradient) {
    if (edge.leaf) {
      Leaf& leaf = leaves_[edge.leaf.get()];
      leaf.state = edge.leaf;
      leaf.gradient.add(gradient);
    } else if (edge.node) {
      auto& outputs = arrived_[edge.node.get()];
      outputs.resize(edge.node->outputs);
      outputs[edge.output].add(gradient);
    }
  }

  /// Every node below the results, latest first, which puts each op before its inputs.
  void collect() {
    std::unordered_set<const Node*> seen;
    while (!stack_.empty()) {
      std::shared_ptr<Node> node = std::move(stack_.back());
      stack_.pop_back();
      if (!seen.insert(node.get()).second) continue;
      CINNABAR_CHECK(!node->freed, "backward", "the graph of '", node->op,
                     "' was freed by an earlier backward; pass retain_graph = true to that call");
      for (const Edge& edge : node->links.edges) {
        if (edge.node && !seen.contains(edge.node.get())) stack_.push_back(edge.node);
      }
      order_.push_back(std::move(node));
    }
    std::sort(order_.begin(), order_.end(), [](const auto& a, const auto& b) { return a->order > b->order; });
  }

  void propagate(const Node& node) {
    const auto found = arrived_.find(&node);
    if (found == arrived_.end()) return;
    std::vector<Tensor> grad_outputs;
    for (const GradientSum& gradient : found->second) grad_outputs.push_back(gradient.sum);
    arrived_.erase(found);
    const std::vector<Tensor> gradients = node.links.backward(grad_outputs);
    const std::vector<Edge>& edges = node.links.edges;
    CINNABAR_CHECK(gradients.size() == edges.size(), node.op, "the backward closure returned ",
                   gradients.size(), " gradients for ", edges.size(), " inputs");
    for (std::size_t input = 0; input < edges.size(); ++input) {
      if (!gradients[input].defined()) continue;
      check_gradient(node.op, input, gradients[input], edges[input]);
      deliver(edges[input], gradients[input]);
    }
  }

  /// Never writes into a tensor that someone else may hold.
  static void add_to_leaf(Variable::State& state, GradientSum& gradient) {
    if (state.grad.defined()) gradient.add(state.grad);
    state.grad = gradient.owned ? gradient.sum : gradient.sum.clone();
  }

  std::vector<std::shared_ptr<Node>> stack_;
  std::vector<std::shared_ptr<Node>> order_;
  std::unordered_map<const Node*, std::vector<GradientSum>> arrived_;
  std::unordered_map<const Variable::State*, Leaf> leaves_;
};

}  // namespace

Variable::Variable(Tensor value, bool requires_grad) : state_(std::make_shared<State>()) {
  CINNABAR_CHECK(value.defined(), "variable", "made from an undefined tensor");
  CINNABAR_CHECK(!requires_grad || is_floating(value.dtype()), "variable", value, " cannot have a gradient");
  state_->value = std::move(value);
  state_->requires_grad = requires_grad;
}

const Tensor& Variable::value() const {
  CINNABAR_CHECK(defined(), "variable", "value of an undefined variable");
  return state_->value;
}

void Variable::set_value(Tensor value) {
  CINNABAR_CHECK(defined() && !state_->creator, "set_value", "only a leaf can take a new value");
  require_same_shape("set_value", state_->value, value);
  require_same_device("set_value", state_->value, value);
  require_dtype("set_value", value, state_->value.dtype());
  state_->value = std::move(value);
}

void move_value(const Variable& leaf, Tensor value) {
  CINNABAR_CHECK(leaf.defined() && !leaf.state()->creator, "move_value", "only a leaf can take a new value");
  Variable::State& state = *leaf.state();
  require_same_shape("move_value", state.value, value);
  CINNABAR_CHECK(!state.requires_grad || is_floating(value.dtype()), "move_value", value,
                 " cannot have a gradient");
  state.value = std::move(value);
  state.grad = {};
}

bool Variable::requires_grad() const {
  return defined() && state_->requires_grad;
}

const Tensor& Variable::grad() const {
  CINNABAR_CHECK(defined(), "variable", "gradient of an undefined variable");
  return state_->grad;
}

void Variable::clear_grad() {
  CINNABAR_CHECK(defined(), "variable", "gradient of an undefined variable");
  state_->grad = {};
}

Variable Variable::detach() const {
  return Variable(value());
}

void Variable::backward(const Tensor& seed, bool retain_graph) const {
  cinnabar::backward({*this}, {seed}, retain_graph);
}

void backward(const std::vector<Variable>& results, const std::vector<Tensor>& seeds, bool retain_graph) {
  CINNABAR_CHECK(results.size() == seeds.size(), "backward", results.size(), " results and ", seeds.size(),
                 " seeds");
  Pass pass;
  for (std::size_t i = 0; i < results.size(); ++i) {
    const Tensor& value = results[i].value();
    CINNABAR_CHECK(results[i].requires_grad(), "backward", "result ", i, ", ", value,
                   ", depends on nothing that requires a gradient");
    CINNABAR_CHECK(seeds[i].defined() || value.numel() == 1, "backward", value, " needs a seed");
    const Tensor seed = seeds[i].defined() ? seeds[i] : one_like(value);
    const Edge edge = edge_to(results[i]);
    check_gradient("backward", i, seed, edge);
    pass.seed(edge, seed);
  }
  pass.run(retain_graph);
}

std::vector<Variable> record(const char* op, std::vector<Tensor> outputs, const std::vector<Variable>& inputs,
                             Backward backward) {
  static std::atomic<std::uint64_t> created{0};
  const bool wanted =
      std::any_of(inputs.begin(), inputs.end(), [](const Variable& v) { return v.requires_grad(); });
  std::shared_ptr<Node> node;
  if (wanted && !recording) ++unrecorded;
  if (wanted && recording) {
    node = std::make_shared<Node>();
    node->op = op;
    node->order = created.fetch_add(1, std::memory_order_relaxed);
    node->outputs = outputs.size();
    node->links.backward = std::move(backward);
    for (const Variable& input : inputs) {
      CINNABAR_CHECK(input.defined(), op, "an input is an undefined variable");
      node->links.edges.push_back(edge_to(input));
    }
  }
  std::vector<Variable> results;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    Variable result(std::move(outputs[i]));
    if (node && is_floating(result.value().dtype())) {
      result.state()->requires_grad = true;
      result.state()->creator = node;
      result.state()->output = i;
    }
    results.push_back(std::move(result));
  }
  return results;
}

Variable record_one(const char* op, Tensor output, const std::vector<Variable>& inputs,
                    std::function<std::vector<Tensor>(const Tensor& grad_output)> backward) {
  return record(
             op, {std::move(output)}, inputs,
             [backward = std::move(backward)](std::span<const Tensor> grads) { return backward(grads[0]); })
      .front();
}

RecordingScope::RecordingScope(bool now) : previous_(std::exchange(recording, now)) {}
RecordingScope::~RecordingScope() {
  recording = previous_;
}
bool grad_enabled() {
  return recording;
}
std::int64_t unrecorded_ops() {
  return unrecorded;
}

}  // namespace cinnabar
