#pragma once

#include <filesystem>
#include <variant>
#include <vector>

#include "registration/affine_transform.hpp"
#include "registration/image.hpp"

namespace cinnabar::registration {

/// Any number of affine maps and displacement fields as one map from the fixed to the moving space. As in
/// ITK's CompositeTransform, the transform appended LAST is applied to a fixed point FIRST: append the
/// affine, then the field of a registration that started from the affine. (antsApplyTransforms names them on
/// its command line in the other order.) A field moves no point outside its grid.
class TransformChain {
 public:
  void append(const Affine& affine) { append(affine.matrix); }
  /// A matrix from RAS mm to RAS mm. Neighbouring matrices are multiplied into one.
  void append(const Matrix4& matrix);
  void append(const DisplacementField& field);
  /// Reads a field (.nii, .nii.gz) or an affine (anything else). Only an affine can be inverted: a field's
  /// inverse is a file of its own, and asking for it is an InputError that says so.
  void append_file(const std::filesystem::path& path, bool inverted = false);

  bool empty() const { return steps_.empty(); }
  /// The image of a fixed point, RAS mm.
  Point map(Point world) const;

 private:
  struct FieldStep {
    Tensor vectors;
    std::array<std::int64_t, 3> extent;
    Matrix4 world_to_voxel;
    const float* first = nullptr;  ///< of `vectors`, so the loop over points checks nothing
  };
  std::vector<std::variant<Matrix4, FieldStep>> steps_;
};

enum class Interpolation { linear, nearest };
enum class LabelInterpolation {
  vote,  ///< the label with the largest trilinear weight among the eight neighbours; a tie goes to the
         ///< smaller
  nearest,
};

/// The moving image seen on the reference grid through the chain: each reference voxel is mapped once and
/// interpolated once. Points that fall outside the moving image get `outside`.
Image resample(const Image& moving, const Geometry& reference, const TransformChain& chain,
               Interpolation interpolation = Interpolation::linear, float outside = 0.0f);
LabelImage resample(const LabelImage& moving, const Geometry& reference, const TransformChain& chain,
                    LabelInterpolation interpolation = LabelInterpolation::vote, std::int32_t outside = 0);

/// The whole chain as one field on a grid.
DisplacementField compose(const TransformChain& chain, const Geometry& reference);

}  // namespace cinnabar::registration
