#pragma once

#include <cstdint>

#include "engine/tensor.hpp"

namespace cinnabar {

/// Extents of an [N, C, D, H, W] tensor. Axes are numbered 0 = x (W), 1 = y (H), 2 = z (D), like the
/// components of a field.
struct FieldShape {
  std::int64_t n = 0, c = 0, d = 0, h = 0, w = 0;

  std::int64_t voxels() const { return d * h * w; }
  std::int64_t rows() const { return n * d * h; }
};

/// Extents of a tensor after checking that it is a floating [N, C, D, H, W] with at least one voxel and,
/// where `channels` is not 0, that many channels. Extents stay below 2^30 so that cell arithmetic fits 32
/// bits.
inline FieldShape field_shape(const char* op, const char* name, const Tensor& tensor,
                              std::int64_t channels = 0) {
  CINNABAR_CHECK(tensor.defined(), op, name, " is undefined");
  require_floating(op, tensor);
  CINNABAR_CHECK(tensor.rank() == 5, op, name, " must be [N, C, D, H, W], got ", tensor);
  const FieldShape shape{tensor.shape(0), tensor.shape(1), tensor.shape(2), tensor.shape(3), tensor.shape(4)};
  CINNABAR_CHECK(tensor.numel() > 0, op, name, " is empty: ", tensor);
  CINNABAR_CHECK(channels == 0 || shape.c == channels, op, name, " needs ", channels, " channels, got ",
                 tensor);
  constexpr std::int64_t kLongest = std::int64_t{1} << 30;
  CINNABAR_CHECK(shape.d < kLongest && shape.h < kLongest && shape.w < kLongest, op, name,
                 " is too long: ", tensor);
  return shape;
}

/// Checks that `other` has the dtype and device of `tensor` and the given channels on the same N, D, H, W.
inline void require_field_like(const char* op, const char* name, const Tensor& other, const Tensor& tensor,
                               std::int64_t channels) {
  CINNABAR_CHECK(other.defined(), op, name, " is undefined");
  require_same_device(op, tensor, other);
  require_dtype(op, other, tensor.dtype());
  CINNABAR_CHECK(other.shape() == tensor.shape().with(1, channels), op, name, " must be ",
                 tensor.shape().with(1, channels), ", got ", other);
}

/// Extents of a warp after checking input [N or 1, C, D, H, W] against displacement [N, 3, D, H, W]: n is the
/// displacement's, c the input's.
inline FieldShape warp_shape(const char* op, const Tensor& input, const Tensor& displacement) {
  FieldShape shape = field_shape(op, "input", input);
  const std::int64_t batch = field_shape(op, "displacement", displacement, 3).n;
  CINNABAR_CHECK(shape.n == batch || shape.n == 1, op, "input ", input, " does not fit displacement ",
                 displacement);
  require_same_device(op, input, displacement);
  require_dtype(op, displacement, input.dtype());
  CINNABAR_CHECK(displacement.shape().with(0, shape.n) == input.shape().with(1, 3), op, "input ", input,
                 " does not fit displacement ", displacement);
  shape.n = batch;
  return shape;
}

}  // namespace cinnabar
