#pragma once

#include "engine/storage.hpp"

namespace cinnabar::cpu {

/// Uninitialised, 64-byte aligned working memory.
template <class T>
struct Scratch {
  explicit Scratch(std::int64_t count)
      : storage(static_cast<std::size_t>(count) * sizeof(T), Device::cpu()),
        values(static_cast<T*>(storage.data())) {}
  Storage storage;
  T* values;
};

}  // namespace cinnabar::cpu
