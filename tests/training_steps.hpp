#pragma once

// What tests of any training do with it.

#include <string>

#include "engine/safetensors.hpp"
#include "models/training.hpp"
#include "tests/scratch_folder.hpp"

namespace cinnabar::testing {

/// Trains up to batch number `until`, validating wherever that is due.
inline void go_on(Training& training, std::int64_t until) {
  while (training.validation_due() || training.step() < until) {
    if (training.validation_due()) {
      training.validate();
    } else {
      training.advance();
    }
  }
}

/// Everything that a checkpoint keeps.
inline std::string bytes_of(Training& training) {
  const ScratchFolder folder;
  save_safetensors(folder / "state.safetensors", training.state());
  return read_bytes(folder / "state.safetensors");
}

}  // namespace cinnabar::testing
