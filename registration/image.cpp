#include "registration/image.hpp"

#include <algorithm>
#include <iterator>
#include <vector>

#include "kernels/parallel.hpp"

namespace cinnabar::registration {

namespace {

constexpr std::int64_t kGrain = 1 << 16;

/// Every vector of a [1, 3, D, H, W] tensor times the linear part of a matrix.
Tensor multiply_vectors(const Tensor& vectors, const Matrix4& matrix, const Geometry& grid) {
  CINNABAR_CHECK(vectors.shape() == grid.shape(3), "displacement field", vectors, " on a grid of ",
                 grid.shape(3));
  const Tensor source = vectors.to(Device::cpu()).to(DType::f32);
  Tensor target = Tensor::empty_like(source);
  const std::int64_t count = grid.voxels();
  const float* in = source.data<float>();
  float* out = target.data<float>();
  parallel_for(count, kGrain, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      const Point mapped = transform_vector(matrix, {in[i], in[count + i], in[2 * count + i]});
      out[i] = static_cast<float>(mapped[0]);
      out[count + i] = static_cast<float>(mapped[1]);
      out[2 * count + i] = static_cast<float>(mapped[2]);
    }
  });
  return target;
}

}  // namespace

DisplacementField field_from_voxel_displacement(const Tensor& voxel_displacement, const Geometry& grid) {
  return {multiply_vectors(voxel_displacement, grid.voxel_to_world, grid), grid, {}};
}

Tensor voxel_displacement(const DisplacementField& field) {
  return multiply_vectors(field.vectors, field.geometry.world_to_voxel(), field.geometry);
}

void require_contrast(const Image& image) {
  const Tensor host = image.voxels.to(Device::cpu());
  const float* values = host.data<float>();
  for (std::int64_t i = 1; i < host.numel(); ++i) {
    if (values[i] != values[0]) return;
  }
  fail_input("'", image.path, "' has the same value (", host.numel() > 0 ? values[0] : 0.0f,
             ") in every voxel; give an image with contrast");
}

Image without_outliers(const Image& image) {
  constexpr double kTail = 0.0005, kRanges = 10.0;
  const Tensor host = image.voxels.to(Device::cpu());
  std::vector<float> sorted = host.to_vector<float>();
  const auto tail = static_cast<std::ptrdiff_t>(kTail * static_cast<double>(sorted.size()));
  const auto nth = [&](std::ptrdiff_t rank) -> double {
    std::nth_element(sorted.begin(), sorted.begin() + rank, sorted.end());
    return sorted[static_cast<std::size_t>(rank)];
  };
  const double low = nth(tail), high = nth(std::ssize(sorted) - 1 - tail);
  const double reach = kRanges * (high - low);
  const auto least = static_cast<float>(low - reach), greatest = static_cast<float>(high + reach);
  const auto [smallest, largest] = std::minmax_element(sorted.begin(), sorted.end());
  if (reach == 0.0 || (*smallest >= least && *largest <= greatest)) return image;
  Tensor clipped = host.clone();
  float* value = clipped.data<float>();
  for (std::int64_t i = 0; i < clipped.numel(); ++i) value[i] = std::clamp(value[i], least, greatest);
  Image result = image;
  result.voxels = clipped.to(image.voxels.device());
  return result;
}

}  // namespace cinnabar::registration
