#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "autograd/optimizer_step.hpp"
#include "layers/module.hpp"

namespace cinnabar {

/// Parameters that share options.
template <class Options>
struct ParameterGroup {
  std::vector<NamedVariable> parameters;
  Options options;
};

/// What all optimisers do: one fused update of every parameter that has a gradient. Values are updated in
/// place, so a graph kept with retain_graph must not be used after a step.
class Optimizer {
 public:
  Optimizer() = default;
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  virtual void step() = 0;
  void clear_gradients();
  /// All parameters in order.
  std::vector<Variable> parameters() const;

  /// Multiplies every group's learning rate from now on; a Schedule says by how much.
  void set_rate_factor(double factor);
  double rate_factor() const { return rate_factor_; }

  /// Running averages and step counts by parameter name. Loading is strict: another kind of optimiser,
  /// unknown names and other shapes throw InputError and change nothing. A parameter without an entry starts
  /// anew.
  SafeTensors state() const;
  void load_state(const SafeTensors& state);

 protected:
  /// The running averages of one parameter by kind ("exp_avg"), made when it first gets a gradient.
  struct Slot {
    std::string name;
    Variable parameter;
    std::int64_t step = 0;
    std::map<std::string, Tensor> averages;
  };

  /// The slots of parameters that share options.
  template <class Options>
  struct Group {
    Options options;
    std::size_t first;
    std::size_t end;
  };

  /// Adds a slot for each parameter; names must differ from all before.
  template <class Options>
  Group<Options> add_group(const ParameterGroup<Options>& group) {
    const std::size_t first = slots_.size();
    add_slots(group.parameters);
    return {group.options, first, slots_.size()};
  }
  Slot& slot(std::size_t index) { return slots_[index]; }
  /// The average of one kind, zero before the first step.
  static Tensor& average(Slot& slot, const char* kind);
  virtual const char* kind() const = 0;
  virtual std::vector<std::string> average_kinds() const = 0;

 private:
  void add_slots(const std::vector<NamedVariable>& parameters);

  std::vector<Slot> slots_;
  double rate_factor_ = 1.0;
};

class Sgd : public Optimizer {
 public:
  Sgd(const std::vector<NamedVariable>& parameters, const SgdOptions& options);
  explicit Sgd(const std::vector<ParameterGroup<SgdOptions>>& groups);
  void step() override;

 private:
  const char* kind() const override { return "sgd"; }
  std::vector<std::string> average_kinds() const override { return {"momentum_buffer"}; }

  std::vector<Group<SgdOptions>> groups_;
};

/// Adam, or AdamW where options.decoupled.
class Adam : public Optimizer {
 public:
  explicit Adam(const std::vector<NamedVariable>& parameters, const AdamOptions& options = {});
  explicit Adam(const std::vector<ParameterGroup<AdamOptions>>& groups);
  void step() override;

 private:
  const char* kind() const override { return "adam"; }
  std::vector<std::string> average_kinds() const override {
    return {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"};
  }

  std::vector<Group<AdamOptions>> groups_;
};

/// Options of AdamW with PyTorch's default weight decay.
AdamOptions adamw_options(double learning_rate = 1e-3, double weight_decay = 1e-2);

/// Factor on the learning rate at a step counted from 0.
using Schedule = std::function<double(std::int64_t step)>;
/// factor^floor(step / every).
Schedule step_schedule(std::int64_t every, double factor);
/// From 1 to `lowest` along half a cosine over `steps`, then constant.
Schedule cosine_schedule(std::int64_t steps, double lowest = 0.0);
/// (step + 1) / steps for the first steps, then the other schedule from its start.
Schedule warmup_schedule(std::int64_t steps, Schedule then);

/// Exponential moving average of parameters: average <- decay average + (1 - decay) value.
class MovingAverage {
 public:
  /// Starts at the present values.
  MovingAverage(const std::vector<NamedVariable>& parameters, double decay);
  void update();
  /// Exchanges averages and values: once to evaluate with the averages, once more to go on training.
  void swap();
  SafeTensors state() const;
  void load_state(const SafeTensors& state);

 private:
  std::vector<NamedVariable> parameters_;
  std::vector<Tensor> averages_;
  double decay_;
};

}  // namespace cinnabar
