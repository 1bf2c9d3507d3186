#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "registration/canvas.hpp"
#include "registration/image.hpp"

namespace cinnabar::registration {

/// A plane through an image as a radiologist sees it: the patient's right on the left of the screen, anterior
/// (axial) or superior (coronal, sagittal) up, anterior to the left in the sagittal plane. Pixels are square
/// in mm whatever the voxels are.
struct SliceView {
  std::string name;
  char left = 'R';  ///< where the edges of the screen point to in the patient
  char right = 'L';
  std::int64_t width = 0;
  std::int64_t height = 0;
  double mm_per_pixel = 1.0;
  Matrix4 pixel_to_world = kIdentity4;  ///< of (column, row, 0)
  Point across{};                       ///< unit vectors in the world of the two directions of the plane
  Point up{};
};

/// Axial, coronal and sagittal planes along the image's own axes through the middle of what is not
/// background, cut to it. The longest side of the three measures about `longest_pixels`.
std::vector<SliceView> three_views(const Image& image, std::int64_t longest_pixels);

/// Channel values at the pixels of a view, row by row, trilinear; `outside` beyond the grid.
std::vector<float> sample_slice(const Tensor& channels, std::int64_t channel, const Geometry& geometry,
                                const SliceView& view, float outside);

/// The values shown as black and white: robust against a few extreme voxels.
struct IntensityWindow {
  float black = 0.0f;
  float white = 1.0f;
  float operator()(float value) const { return (value - black) / (white - black); }
};
IntensityWindow intensity_window(const Image& image);

/// Blue below 0, dark at 0, red above, for values -1..1.
Colour diverging_colour(float value);

}  // namespace cinnabar::registration
