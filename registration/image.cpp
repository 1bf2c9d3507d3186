#include "registration/image.hpp"

#include <algorithm>
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
  Tensor host = image.voxels.to(Device::cpu()).clone();
  float* values = host.data<float>();
  float* end = values + host.numel();
  const auto tail = static_cast<std::ptrdiff_t>(kTail * static_cast<double>(host.numel()));
  std::vector<float> sorted(values, end);
  std::nth_element(sorted.begin(), sorted.begin() + tail, sorted.end());
  const double low = sorted[static_cast<std::size_t>(tail)];
  std::nth_element(sorted.begin(), sorted.end() - 1 - tail, sorted.end());
  const double high = *(sorted.end() - 1 - tail);
  const auto least = static_cast<float>(low - kRanges * (high - low));
  const auto greatest = static_cast<float>(high + kRanges * (high - low));
  const auto [smallest, largest] = std::minmax_element(values, end);
  if (high == low || (*smallest >= least && *largest <= greatest)) return image;
  std::for_each(values, end, [&](float& value) { value = std::clamp(value, least, greatest); });
  Image result = image;
  result.voxels = host.to(image.voxels.device());
  return result;
}

}  // namespace cinnabar::registration
