#include "registration/nifti.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>

#include "registration/nifti_stream.hpp"
#include "registration/sampling.hpp"

namespace cinnabar::registration {

namespace {

/// A 3-D image has three dimensions, or more whose extents are 1.
void require_one_volume(const NiftiReader& reader) {
  const std::vector<std::int64_t>& extent = reader.header().extent;
  const auto solid = [](std::int64_t n) { return n > 1; };
  if (extent.size() > 4 && std::count_if(extent.begin() + 3, extent.end(), solid) > 0) {
    reader.fail(detail::concat("it holds vectors or many volumes (", reader.header().extent_text(),
                               "), not one scalar image; give a 3-D image"));
  }
  if (extent.size() == 4 && extent[3] > 1) {
    reader.fail(
        detail::concat("it is 4-D with ", extent[3], " frames; extract one (for example fslroi in out 0 1)"));
  }
  if (extent.size() < 3 || std::count_if(extent.begin(), extent.begin() + 3, solid) < 3) {
    reader.fail(detail::concat("it is not 3-D (", reader.header().extent_text(),
                               "); give a volume at least 2 voxels thick"));
  }
}

Tensor allocate(const NiftiReader& reader, const Shape& shape, DType dtype) {
  reader.require_length();
  try {
    return Tensor::empty(shape, dtype);
  } catch (const std::bad_alloc&) {
    reader.fail(detail::concat("its ", reader.header().extent_text(), " voxels do not fit in memory"));
  }
}

NiftiHeader header_of(const Geometry& geometry, VoxelType type) {
  NiftiHeader header;
  header.extent.assign(geometry.extent.begin(), geometry.extent.end());
  header.type = type;
  header.geometry = geometry;
  return header;
}

}  // namespace

Image read_image(const std::filesystem::path& path, NonFinite non_finite) {
  NiftiReader reader(path);
  require_one_volume(reader);
  const NiftiHeader& header = reader.header();
  const bool as_stored = header.slope == 1.0 && header.intercept == 0.0;
  Image image{allocate(reader, header.geometry.shape(), DType::f32), header.geometry, reader.path(),
              as_stored ? header.type : VoxelType::f32};
  float* target = image.voxels.data<float>();
  std::int64_t bad = 0;
  reader.read_elements([&](std::int64_t first, std::span<const double> values) {
    for (const double value : values) {
      // A float64 beyond the range of float32 becomes infinite here and counts as such.
      float voxel = static_cast<float>(value);
      if (!std::isfinite(voxel)) {
        ++bad;
        if (non_finite == NonFinite::zero) voxel = 0.0f;
      }
      target[first++] = voxel;
    }
  });
  if (bad > 0 && non_finite == NonFinite::reject) {
    reader.fail(
        detail::concat(bad, " voxels are NaN or infinite; replace them (for example fslmaths in -nan out)"));
  }
  return image;
}

LabelImage read_labels(const std::filesystem::path& path) {
  NiftiReader reader(path);
  require_one_volume(reader);
  const NiftiHeader& header = reader.header();
  LabelImage image{allocate(reader, header.geometry.shape(), DType::i32), header.geometry, reader.path(),
                   header.type};
  std::int32_t* target = image.labels.data<std::int32_t>();
  reader.read_elements([&](std::int64_t first, std::span<const double> values) {
    for (const double value : values) {
      // Written so that NaN fails as well.
      if (!(std::abs(value) <= std::numeric_limits<std::int32_t>::max() && value == std::trunc(value))) {
        reader.fail(detail::concat("it is no label image: a voxel holds ", value,
                                   "; labels are whole numbers of 32 bits"));
      }
      target[first++] = static_cast<std::int32_t>(value);
    }
  });
  return image;
}

Geometry read_geometry(const std::filesystem::path& path) {
  const NiftiReader reader(path);
  const std::array<std::int64_t, 3>& extent = reader.header().geometry.extent;
  if (*std::min_element(extent.begin(), extent.end()) < 2) {
    reader.fail(detail::concat("it is not 3-D (", reader.header().extent_text(),
                               "); give a volume at least 2 voxels thick"));
  }
  return reader.header().geometry;
}

void write_image(const std::filesystem::path& path, const Image& image, VoxelType type) {
  CINNABAR_CHECK(image.voxels.shape() == image.geometry.shape(), "write_image", image.voxels,
                 " on a grid of ", image.geometry.shape());
  const Tensor host = image.voxels.to(Device::cpu()).to(DType::f32);
  const float* source = host.data<float>();
  write_nifti(path, header_of(image.geometry, type), [&](std::int64_t first, std::span<double> values) {
    std::copy_n(source + first, values.size(), values.begin());
  });
}

void write_labels(const std::filesystem::path& path, const LabelImage& image) {
  const Tensor host = image.labels.to(Device::cpu()).to(DType::i32);
  const std::int32_t* labels = host.data<std::int32_t>();
  const auto [least, greatest] = std::minmax_element(labels, labels + host.numel());
  VoxelType type = VoxelType::i32;
  if (*least >= 0 && *greatest <= 255) {
    type = VoxelType::u8;
  } else if (*least >= -32768 && *greatest <= 32767) {
    type = VoxelType::i16;
  }
  write_labels(path, image, type);
}

void write_labels(const std::filesystem::path& path, const LabelImage& image, VoxelType type) {
  CINNABAR_CHECK(image.labels.shape() == image.geometry.shape(), "write_labels", image.labels,
                 " on a grid of ", image.geometry.shape());
  const Tensor host = image.labels.to(Device::cpu()).to(DType::i32);
  const std::int32_t* source = host.data<std::int32_t>();
  const std::int64_t bits = 8 * static_cast<std::int64_t>(size_of(type));
  double lowest = std::numeric_limits<std::int32_t>::min();
  double highest = std::numeric_limits<std::int32_t>::max();
  if (type == VoxelType::u8 || type == VoxelType::u16 || type == VoxelType::u32 || type == VoxelType::u64) {
    lowest = 0.0;
    highest = std::min(highest, std::exp2(static_cast<double>(bits)) - 1.0);
  } else if (type == VoxelType::i8 || type == VoxelType::i16) {
    highest = std::exp2(static_cast<double>(bits - 1)) - 1.0;
    lowest = -highest - 1.0;
  } else if (type == VoxelType::f32) {
    highest = 16777216.0;
    lowest = -highest;
  }
  for (std::int64_t i = 0; i < host.numel(); ++i) {
    if (source[i] < lowest || source[i] > highest) {
      fail_input("cannot write '", path.string(), "': label ", source[i], " does not fit in ", name_of(type),
                 "; choose a wider type");
    }
  }
  write_nifti(path, header_of(image.geometry, type), [&](std::int64_t first, std::span<double> values) {
    std::copy_n(source + first, values.size(), values.begin());
  });
}

DisplacementField read_field(const std::filesystem::path& path) {
  NiftiReader reader(path);
  const NiftiHeader& header = reader.header();
  const std::vector<std::int64_t>& extent = header.extent;
  const bool niftyreg = header.intent_name.starts_with("NREG_TRANS");
  if (extent.size() < 5 || extent[3] != 1 || extent[4] != 3 ||
      header.elements() != 3 * header.geometry.voxels()) {
    reader.fail(detail::concat("it is not a displacement field: ", header.extent_text(),
                               " instead of X x Y x Z x 1 x 3"));
  }
  if (!niftyreg && header.intent_code != 1006 && header.intent_code != 1007) {
    reader.fail(
        detail::concat("its intent code is ", header.intent_code,
                       ", so the convention of its vectors is unknown; 1007 (ITK, LPS mm) is expected"));
  }
  const double kind = header.intent_parameters[0];
  if (niftyreg && kind != 0.0 && kind != 1.0) {
    reader.fail(
        detail::concat("it is a NiftyReg transform of kind ", kind, "; convert it with reg_transform -disp"));
  }
  DisplacementField field{allocate(reader, header.geometry.shape(3), DType::f32), header.geometry,
                          reader.path()};
  const std::int64_t voxels = header.geometry.voxels();
  const bool lps = !niftyreg && header.intent_code == 1007;
  const bool positions = niftyreg && kind == 0.0;
  float* target = field.vectors.data<float>();
  std::int64_t bad = 0;
  reader.read_elements([&](std::int64_t first, std::span<const double> values) {
    for (const double value : values) {
      const std::int64_t component = first / voxels;
      double vector = lps && component < 2 ? -value : value;
      if (positions) {
        const Point voxel = voxel_position(header.geometry.extent, first - component * voxels);
        vector -= transform_point(header.geometry.voxel_to_world, voxel)[static_cast<std::size_t>(component)];
      }
      target[first] = static_cast<float>(vector);
      if (!std::isfinite(target[first])) ++bad;
      ++first;
    }
  });
  if (bad > 0) reader.fail(detail::concat(bad, " components of its vectors are NaN or infinite"));
  return field;
}

void write_field(const std::filesystem::path& path, const DisplacementField& field) {
  CINNABAR_CHECK(field.vectors.shape() == field.geometry.shape(3), "write_field", field.vectors,
                 " on a grid of ", field.geometry.shape(3));
  const Tensor host = field.vectors.to(Device::cpu()).to(DType::f32);
  const float* source = host.data<float>();
  NiftiHeader header = header_of(field.geometry, VoxelType::f32);
  header.extent.insert(header.extent.end(), {1, 3});
  header.intent_code = 1007;
  const std::int64_t voxels = field.geometry.voxels();
  write_nifti(path, header, [&](std::int64_t first, std::span<double> values) {
    for (double& value : values) {
      const double ras = source[first];
      value = first < 2 * voxels ? -ras : ras;
      ++first;
    }
  });
}

}  // namespace cinnabar::registration
