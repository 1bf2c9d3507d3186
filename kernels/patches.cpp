#include "kernels/patches.hpp"

namespace cinnabar {

namespace {

constexpr const char* kOp = "patches";
constexpr std::int64_t kLongest = std::int64_t{1} << 30;

FieldShape extents_of(const char* name, const Tensor& tensor) {
  CINNABAR_CHECK(tensor.defined() && tensor.rank() == 5, kOp, name, " must be [N, C, D, H, W], got ", tensor);
  const FieldShape shape{tensor.shape(0), tensor.shape(1), tensor.shape(2), tensor.shape(3), tensor.shape(4)};
  CINNABAR_CHECK(shape.c > 0 && shape.voxels() > 0, kOp, name, " are empty: ", tensor);
  CINNABAR_CHECK(shape.d < kLongest && shape.h < kLongest && shape.w < kLongest, kOp, name,
                 " are too long: ", tensor);
  return shape;
}

void check_starts(const Tensor& starts, const Tensor& volumes) {
  CINNABAR_CHECK(starts.defined() && starts.rank() == 2 && starts.shape(1) == 4, kOp,
                 "starts must be [N, 4], got ", starts);
  require_dtype(kOp, starts, DType::i32);
  require_same_device(kOp, starts, volumes);
  CINNABAR_CHECK(starts.shape(0) < kLongest, kOp, "too many patches: ", starts);
}

}  // namespace

PatchGeometry patch_geometry(const Tensor& volumes, const Tensor& starts, const Tensor& patches) {
  const PatchGeometry geometry{extents_of("volumes", volumes), extents_of("patches", patches)};
  check_starts(starts, volumes);
  require_same_device(kOp, volumes, patches);
  require_dtype(kOp, patches, volumes.dtype());
  CINNABAR_CHECK(geometry.patches.c == geometry.volumes.c, kOp, "patches ", patches, " and volumes ", volumes,
                 " differ in channels");
  CINNABAR_CHECK(geometry.patches.n == starts.shape(0), kOp, "patches ", patches, " do not fit starts ",
                 starts);
  return geometry;
}

PatchGeometry patch_count_geometry(const Tensor& starts, const Shape& extents, const Tensor& counts) {
  PatchGeometry geometry;
  geometry.volumes = extents_of("counts", counts);
  require_floating(kOp, counts);
  check_starts(starts, counts);
  CINNABAR_CHECK(geometry.volumes.c == 1, kOp, "counts must have one channel, got ", counts);
  CINNABAR_CHECK(extents.rank() == 3 && extents.numel() > 0, kOp, "extents must be (d, h, w), got ", extents);
  for (const std::int64_t extent : extents) {
    CINNABAR_CHECK(extent < kLongest, kOp, "patches are too long: ", extents);
  }
  geometry.patches = {starts.shape(0), 1, extents[0], extents[1], extents[2]};
  return geometry;
}

FieldShape patch_average_shape(const Tensor& counts, const Tensor& volumes) {
  const FieldShape shape = extents_of("volumes", volumes);
  require_field_like(kOp, "counts", counts, volumes, 1);
  return shape;
}

}  // namespace cinnabar
