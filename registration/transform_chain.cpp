#include "registration/transform_chain.hpp"

#include "kernels/parallel.hpp"
#include "registration/nifti.hpp"
#include "registration/sampling.hpp"

namespace cinnabar::registration {

namespace {

/// Calls body(index, world point) for every voxel, on all threads.
template <class Body>
void for_each_voxel(const Geometry& grid, const Body& body) {
  const std::int64_t width = grid.extent[0], height = grid.extent[1];
  parallel_for(height * grid.extent[2], 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const Point start = voxel_position(grid.extent, row * width);
      for (std::int64_t x = 0; x < width; ++x) {
        body(row * width + x,
             transform_point(grid.voxel_to_world, {static_cast<double>(x), start[1], start[2]}));
      }
    }
  });
}

std::int32_t vote(const Neighbours& at, const std::int32_t* labels) {
  std::array<std::int32_t, 8> seen{};
  std::array<double, 8> weight{};
  std::size_t count = 0;
  for (std::size_t corner = 0; corner < 8; ++corner) {
    const std::int32_t label = labels[at.index[corner]];
    std::size_t slot = 0;
    while (slot < count && seen[slot] != label) ++slot;
    if (slot == count) {
      seen[slot] = label;
      weight[slot] = 0.0;
      ++count;
    }
    weight[slot] += at.weight[corner];
  }
  std::size_t best = 0;
  for (std::size_t slot = 1; slot < count; ++slot) {
    // Equal up to rounding is a tie.
    const double lead = weight[slot] - weight[best];
    if (lead > 1e-9 || (lead > -1e-9 && seen[slot] < seen[best])) best = slot;
  }
  return seen[best];
}

bool is_nifti_name(const std::filesystem::path& path) {
  const std::string name = path.filename().string();
  return name.ends_with(".nii") || name.ends_with(".nii.gz");
}

}  // namespace

void TransformChain::append(const Matrix4& matrix) {
  CINNABAR_CHECK(is_invertible(matrix), "transform chain", "a matrix is singular or not finite");
  if (!steps_.empty() && std::holds_alternative<Matrix4>(steps_.back())) {
    Matrix4& previous = std::get<Matrix4>(steps_.back());
    previous = multiply(previous, matrix);
  } else {
    steps_.emplace_back(matrix);
  }
}

void TransformChain::append(const DisplacementField& field) {
  CINNABAR_CHECK(field.vectors.shape() == field.geometry.shape(3), "transform chain", field.vectors,
                 " on a grid of ", field.geometry.shape(3));
  FieldStep step{field.vectors.to(Device::cpu()).to(DType::f32), field.geometry.extent,
                 field.geometry.world_to_voxel()};
  step.first = step.vectors.data<float>();
  steps_.emplace_back(std::move(step));
}

void TransformChain::append_file(const std::filesystem::path& path, bool inverted) {
  if (is_nifti_name(path)) {
    if (inverted) {
      fail_input("cannot invert the displacement field '", path.string(),
                 "'; give the inverse field that was saved with it (1InverseWarp.nii.gz)");
    }
    append(read_field(path));
  } else {
    const Matrix4 matrix = read_affine(path).matrix;
    append(inverted ? invert(matrix) : matrix);
  }
}

Point TransformChain::map(Point world) const {
  for (auto step = steps_.rbegin(); step != steps_.rend(); ++step) {
    if (const Matrix4* matrix = std::get_if<Matrix4>(&*step)) {
      world = transform_point(*matrix, world);
      continue;
    }
    const FieldStep& field = *std::get_if<FieldStep>(&*step);
    const Point voxel = transform_point(field.world_to_voxel, world);
    if (!is_inside(field.extent, voxel)) continue;
    const Neighbours at = neighbours(field.extent, voxel);
    const std::int64_t plane = field.extent[0] * field.extent[1] * field.extent[2];
    for (std::size_t c = 0; c < 3; ++c) {
      world[c] += weighted_sum(at, field.first + static_cast<std::int64_t>(c) * plane);
    }
  }
  return world;
}

Image resample(const Image& moving, const Geometry& reference, const TransformChain& chain,
               Interpolation interpolation, float outside) {
  CINNABAR_CHECK(moving.voxels.shape() == moving.geometry.shape(), "resample", moving.voxels,
                 " on a grid of ", moving.geometry.shape());
  const Tensor host = moving.voxels.to(Device::cpu()).to(DType::f32);
  const float* source = host.data<float>();
  const std::array<std::int64_t, 3> extent = moving.geometry.extent;
  const Matrix4 to_voxel = moving.geometry.world_to_voxel();
  Image result{Tensor::empty(reference.shape()), reference, {}, moving.stored};
  float* target = result.voxels.data<float>();
  for_each_voxel(reference, [&](std::int64_t index, const Point& world) {
    const Point voxel = transform_point(to_voxel, chain.map(world));
    if (!is_inside(extent, voxel)) {
      target[index] = outside;
    } else if (interpolation == Interpolation::nearest) {
      target[index] = source[nearest_index(extent, voxel)];
    } else {
      target[index] = static_cast<float>(weighted_sum(neighbours(extent, voxel), source));
    }
  });
  return result;
}

LabelImage resample(const LabelImage& moving, const Geometry& reference, const TransformChain& chain,
                    LabelInterpolation interpolation, std::int32_t outside) {
  CINNABAR_CHECK(moving.labels.shape() == moving.geometry.shape(), "resample", moving.labels,
                 " on a grid of ", moving.geometry.shape());
  const Tensor host = moving.labels.to(Device::cpu()).to(DType::i32);
  const std::int32_t* source = host.data<std::int32_t>();
  const std::array<std::int64_t, 3> extent = moving.geometry.extent;
  const Matrix4 to_voxel = moving.geometry.world_to_voxel();
  LabelImage result{Tensor::empty(reference.shape(), DType::i32), reference, {}, moving.stored};
  std::int32_t* target = result.labels.data<std::int32_t>();
  for_each_voxel(reference, [&](std::int64_t index, const Point& world) {
    const Point voxel = transform_point(to_voxel, chain.map(world));
    if (!is_inside(extent, voxel)) {
      target[index] = outside;
    } else if (interpolation == LabelInterpolation::nearest) {
      target[index] = source[nearest_index(extent, voxel)];
    } else {
      target[index] = vote(neighbours(extent, voxel), source);
    }
  });
  return result;
}

DisplacementField compose(const TransformChain& chain, const Geometry& reference) {
  DisplacementField field{Tensor::empty(reference.shape(3)), reference, {}};
  const std::int64_t voxels = reference.voxels();
  float* target = field.vectors.data<float>();
  for_each_voxel(reference, [&](std::int64_t index, const Point& world) {
    const Point mapped = chain.map(world);
    for (std::size_t c = 0; c < 3; ++c) {
      target[static_cast<std::int64_t>(c) * voxels + index] = static_cast<float>(mapped[c] - world[c]);
    }
  });
  return field;
}

}  // namespace cinnabar::registration
