#pragma once

#include <cmath>
#include <vector>

#include "engine/tensor.hpp"

namespace cinnabar::bench {

/// A smooth field [1, 3, n, n, n] of the given amplitude in voxels, as displacements of brains are.
inline Tensor wavy_field(std::int64_t n, double amplitude, Device device) {
  Tensor field = Tensor::empty({1, 3, n, n, n});
  float* value = field.data<float>();
  for (int c = 0; c < 3; ++c) {
    for (std::int64_t z = 0; z < n; ++z) {
      for (std::int64_t y = 0; y < n; ++y) {
        for (std::int64_t x = 0; x < n; ++x) {
          const auto px = static_cast<double>(x), py = static_cast<double>(y), pz = static_cast<double>(z);
          *value++ = static_cast<float>(amplitude * std::sin(0.2 * px + c) * std::cos(0.17 * py - c) *
                                        std::sin(0.13 * pz + 0.5 * c + amplitude));
        }
      }
    }
  }
  return field.to(device);
}

}  // namespace cinnabar::bench
