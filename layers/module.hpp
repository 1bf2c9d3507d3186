#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "autograd/epilogue.hpp"
#include "engine/safetensors.hpp"

namespace cinnabar {

class Generator;

/// A parameter or buffer with its path in the tree of modules, "encoder.conv1.weight".
struct NamedVariable {
  std::string name;
  Variable variable;
};

/// Something with parameters: a layer or a network of layers. A subclass holds its parameters as Variables
/// and its children as members or owned pointers, and lists both in its constructor with add_parameter,
/// add_buffer and add_child. Parameters are learned; buffers (running statistics) are only saved. Modules
/// stay where they are made: parents keep their addresses.
class Module {
 public:
  Module() = default;
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  /// Own ones first, then those of the children, in the order of their listing.
  std::vector<NamedVariable> named_parameters() const;
  std::vector<NamedVariable> named_buffers() const;
  std::vector<Variable> parameters() const;
  /// Number of learned numbers.
  std::int64_t parameter_count() const;

  /// Copies of all parameters and buffers on the CPU, by name.
  SafeTensors state() const;
  /// Takes over values by name; floating dtypes are converted. Names that are missing or unknown (unless not
  /// strict) and shapes that differ throw one InputError that lists them all, and nothing is changed.
  void load_state(const SafeTensors& state, bool strict = true);
  /// The same to and from a .safetensors file; errors name it.
  void save(const std::filesystem::path& path) const;
  void load(const std::filesystem::path& path, bool strict = true);

  /// Where the layers' random sequences stand (dropout), by name: i64 [3] of seed, stream and offset. Apart
  /// from state(), which has PyTorch's names only. A training that restores this, state() and the optimiser's
  /// state goes on with the same bits. Loading is strict, throws InputError and then changes nothing.
  SafeTensors random_state() const;
  void load_random_state(const SafeTensors& state);

  /// Training (the initial state) or evaluation, for all children too: dropout and batch norm behave
  /// differently.
  void train(bool training = true);
  void eval() { train(false); }
  bool training() const { return training_; }

  /// Moves parameters and buffers, or converts those that are floating; gradients are dropped.
  void to(Device device);
  void to(DType dtype);
  void clear_gradients();

 protected:
  /// List a tensor under a name without dots that nothing else here has.
  Variable add_parameter(const std::string& name, Tensor value);
  Variable add_buffer(const std::string& name, Tensor value);
  void add_child(const std::string& name, Module& child);
  /// List a member that draws random numbers in forward.
  void add_generator(const std::string& name, Generator& generator);

 private:
  using NamedGenerator = std::pair<std::string, Generator*>;

  void check_name(const std::string& name) const;
  void collect(const std::string& prefix, bool buffers, std::vector<NamedVariable>& found) const;
  std::vector<NamedVariable> all_variables() const;
  void collect_generators(const std::string& prefix, std::vector<NamedGenerator>& found) const;

  std::vector<NamedVariable> parameters_;
  std::vector<NamedVariable> buffers_;
  std::vector<std::pair<std::string, Module*>> children_;
  std::vector<NamedGenerator> generators_;
  bool training_ = true;
};

/// A module from one tensor to one tensor.
class Layer : public Module {
 public:
  virtual Variable forward(const Variable& x) = 0;
  Variable operator()(const Variable& x) { return forward(x); }

  /// Becomes the next part of the epilogue of a layer with `elements` results, so that forward need not run
  /// after it. Returns false, and leaves everything as it was, where it cannot.
  virtual bool join(EpilogueInputs& epilogue, std::int64_t elements);
};

/// Adds what follows a layer with `elements` results to its epilogue.
using JoinEpilogue = std::function<void(EpilogueInputs& epilogue, std::int64_t elements)>;

/// A layer that can compute what follows it in its own pass.
class EpilogueLayer : public Layer {
 public:
  /// forward, and what `join` adds; it is called once and may be empty.
  virtual Variable forward_and(const Variable& x, const JoinEpilogue& join) = 0;
  Variable forward(const Variable& x) final { return forward_and(x, {}); }
};

}  // namespace cinnabar
