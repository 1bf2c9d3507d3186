#pragma once

#include <gtest/gtest.h>

#include <cmath>

#include "registration/affine_transform.hpp"
#include "registration/image.hpp"

namespace cinnabar::testing {

using registration::Affine;
using registration::DisplacementField;
using registration::Geometry;
using registration::Image;
using registration::Point;

/// A shear, turn, anisotropic scaling and shift that stays near the identity.
inline Affine some_affine() {
  return {{0.95, 0.12, -0.07, 4.5, -0.1, 1.08, 0.05, -3.25, 0.04, -0.06, 0.9, 2.75, 0, 0, 0, 1},
          {12, -34, 56}};
}

/// A smooth image of values 0 to 100.
inline Image smooth_image(const Geometry& grid) {
  Image image{Tensor::empty(grid.shape()), grid, {}};
  float* voxel = image.voxels.data<float>();
  for (std::int64_t i = 0; i < grid.voxels(); ++i) {
    const std::int64_t x = i % grid.extent[0], y = i / grid.extent[0] % grid.extent[1];
    const std::int64_t z = i / (grid.extent[0] * grid.extent[1]);
    voxel[i] = static_cast<float>(50.0 + 25.0 * std::sin(0.9 * static_cast<double>(x)) +
                                  15.0 * std::cos(0.7 * static_cast<double>(y)) +
                                  10.0 * std::sin(1.1 * static_cast<double>(z)));
  }
  return image;
}

/// Displacements of up to the amplitude that vary along every axis.
inline DisplacementField wavy_field(const Geometry& grid, double amplitude_mm) {
  DisplacementField field{Tensor::empty(grid.shape(3)), grid, {}};
  float* vector = field.vectors.data<float>();
  for (std::int64_t i = 0; i < 3 * grid.voxels(); ++i) {
    vector[i] = static_cast<float>(amplitude_mm * std::sin(0.37 * static_cast<double>(i % 101)));
  }
  return field;
}

inline void expect_point(const Point& actual, const Point& expected, double tolerance) {
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NEAR(actual[i], expected[i], tolerance) << "axis " << i;
}

}  // namespace cinnabar::testing
