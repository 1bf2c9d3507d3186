#pragma once

#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "layers/module.hpp"

namespace cinnabar {

/// Layers one after another, named "0", "1", ... as PyTorch names them, or by names of their own.
class Sequential : public Layer {
 public:
  /// Makes a layer in place at the end and returns it.
  template <class T, class... Arguments>
  T& add(Arguments&&... arguments) {
    return add_named<T>(std::to_string(layers_.size()), std::forward<Arguments>(arguments)...);
  }
  template <class T, class... Arguments>
  T& add_named(const std::string& name, Arguments&&... arguments) {
    static_assert(std::is_base_of_v<Layer, T>);
    auto layer = std::make_unique<T>(std::forward<Arguments>(arguments)...);
    T& added = *layer;
    add_child(name, added);
    layers_.push_back(std::move(layer));
    return added;
  }

  /// Layers that can be joined to the one before them are: same bits, fewer passes.
  Variable forward(const Variable& x) override;

  std::size_t size() const { return layers_.size(); }

 private:
  std::vector<std::unique_ptr<Layer>> layers_;
};

}  // namespace cinnabar
