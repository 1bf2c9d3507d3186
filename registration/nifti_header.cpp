#include "registration/nifti_header.hpp"

#include <nifti2_io.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string_view>

#include "engine/error.hpp"

static_assert(std::endian::native == std::endian::little, "byte order of headers and voxels");

namespace cinnabar::registration {

namespace {

constexpr std::int64_t kMaxElements = std::int64_t{1} << 46;

[[noreturn]] void fail_header(const std::string& path, const std::string& what) {
  fail_input("cannot read '", path, "': ", what);
}

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// The remedy for files people mistake for NIfTI.
std::string describe_other_format(std::string_view text) {
  if (text.size() > 132 && text.substr(128, 4) == "DICM") return "it is DICOM; convert it with dcm2niix";
  if (text.starts_with("NRRD")) return "it is NRRD; convert it to .nii.gz, with ITK-SNAP or 3D Slicer";
  if (text.starts_with("\x89PNG") || text.starts_with("\xff\xd8\xff")) {
    return "it is a picture; give a 3-D image in .nii or .nii.gz";
  }
  if (text.starts_with("\x89HDF")) return "it is HDF5 or MINC2; convert it to .nii.gz (mnc2nii)";
  if (text.find("ObjectType") < 64 || text.find("NDims") < 64) {
    return "it is MetaImage; convert it to .nii.gz, with ITK-SNAP or 3D Slicer";
  }
  return "it is not a NIfTI file; give a .nii or .nii.gz image";
}

VoxelType scalar_type(int datatype, const std::string& path) {
  const char* kind = nullptr;
  switch (datatype) {
    case DT_UINT8:
    case DT_INT16:
    case DT_INT32:
    case DT_FLOAT32:
    case DT_FLOAT64:
    case DT_INT8:
    case DT_UINT16:
    case DT_UINT32:
    case DT_INT64:
    case DT_UINT64:
      return static_cast<VoxelType>(datatype);
    case DT_COMPLEX64:
    case DT_COMPLEX128:
    case DT_COMPLEX256:
      kind = "complex numbers; save the magnitude instead";
      break;
    case DT_RGB24:
    case DT_RGBA32:
      kind = "colours; save one grey channel instead";
      break;
    case DT_FLOAT128:
      kind = "128-bit floats; save it as float32 or float64";
      break;
    case DT_BINARY:
      kind = "single bits; save it as uint8";
      break;
    default:
      fail_header(path, detail::concat("unknown data type ", datatype, "; save it as float32"));
  }
  fail_header(path, detail::concat("its voxels are ", kind));
}

/// mm per unit of length the header counts in; unknown counts as mm.
double millimetres_per_unit(int xyzt_units) {
  switch (XYZT_TO_SPACE(xyzt_units)) {
    case NIFTI_UNITS_METER:
      return 1000.0;
    case NIFTI_UNITS_MICRON:
      return 0.001;
    default:
      return 1.0;
  }
}

/// sform if its code is positive, else qform, else pixdim alone with the origin at voxel 0.
template <class Header>
void read_geometry(const Header& h, NiftiHeader& result, const std::string& path) {
  Geometry& g = result.geometry;
  for (std::size_t axis = 0; axis < 3 && axis < result.extent.size(); ++axis) {
    g.extent[axis] = result.extent[axis];
  }
  const char* source = "pixdim (voxel sizes)";
  std::array<double, 3> size{};
  for (std::size_t axis = 0; axis < 3; ++axis) size[axis] = std::abs(static_cast<double>(h.pixdim[axis + 1]));
  if (result.extent.size() < 3) size[2] = 1.0;
  if (h.sform_code > 0) {
    source = "sform";
    g.space_code = h.sform_code;
    for (std::size_t column = 0; column < 4; ++column) {
      g.voxel_to_world[column] = h.srow_x[column];
      g.voxel_to_world[4 + column] = h.srow_y[column];
      g.voxel_to_world[8 + column] = h.srow_z[column];
    }
  } else if (h.qform_code > 0) {
    source = "qform";
    g.space_code = h.qform_code;
    // libnifti turns a zero voxel size into 1; here it is an error below, as any other singular matrix.
    const nifti_dmat44 q = nifti_quatern_to_dmat44(h.quatern_b, h.quatern_c, h.quatern_d, h.qoffset_x,
                                                   h.qoffset_y, h.qoffset_z, 1.0, 1.0, 1.0, h.pixdim[0]);
    for (std::size_t row = 0; row < 3; ++row) {
      for (std::size_t column = 0; column < 3; ++column) {
        g.voxel_to_world[row * 4 + column] = q.m[row][column] * size[column];
      }
      g.voxel_to_world[row * 4 + 3] = q.m[row][3];
    }
  } else {
    g.voxel_to_world = {size[0], 0, 0, 0, 0, size[1], 0, 0, 0, 0, size[2], 0, 0, 0, 0, 1};
  }
  const double unit = millimetres_per_unit(h.xyzt_units);
  for (std::size_t i = 0; i < 12; ++i) g.voxel_to_world[i] *= unit;
  if (!is_invertible(g.voxel_to_world)) {
    fail_header(path,
                detail::concat("its ", source, " is singular or not finite, so voxels have no position; ",
                               "set it from the original scan (for example with nibabel or fslorient)"));
  }
}

template <class Header>
NiftiHeader interpret(const Header& h, std::size_t header_bytes, bool swapped, const std::string& path) {
  NiftiHeader result;
  result.swapped = swapped;
  if (h.dim[0] < 1 || h.dim[0] > 7) {
    fail_header(path, detail::concat("its header claims ", h.dim[0], " dimensions; the file is damaged"));
  }
  std::int64_t elements = 1;
  for (int axis = 1; axis <= h.dim[0]; ++axis) {
    const std::int64_t extent = h.dim[axis];
    if (extent < 1 || extent > kMaxElements / elements) {
      fail_header(path, detail::concat("its header claims ", extent, " voxels along dimension ", axis,
                                       "; the file is damaged"));
    }
    elements *= extent;
    result.extent.push_back(extent);
  }
  result.type = scalar_type(h.datatype, path);
  const double offset = static_cast<double>(h.vox_offset);
  const double smallest = static_cast<double>(header_bytes);
  if (offset == 0.0) {
    result.data_offset = static_cast<std::int64_t>(header_bytes) + 4;
  } else if (offset >= smallest && offset < 1e12) {
    result.data_offset = static_cast<std::int64_t>(offset);
  } else {
    fail_header(path, detail::concat("its header puts the voxels at byte ", offset, "; the file is damaged"));
  }
  const double slope = static_cast<double>(h.scl_slope);
  const double intercept = static_cast<double>(h.scl_inter);
  if (std::isfinite(slope) && slope != 0.0) {
    if (!std::isfinite(intercept)) fail_header(path, "its scl_inter is not finite; the file is damaged");
    result.slope = slope;
    result.intercept = intercept;
  }
  result.intent_code = h.intent_code;
  result.intent_parameters = {static_cast<double>(h.intent_p1), static_cast<double>(h.intent_p2),
                              static_cast<double>(h.intent_p3)};
  result.intent_name.assign(h.intent_name, ::strnlen(h.intent_name, sizeof h.intent_name));
  read_geometry(h, result, path);
  return result;
}

/// True when the quaternion and sizes of a qform reproduce the matrix to 1e-3 of a voxel size; shears do not.
bool qform_represents(const nifti_dmat44& q, const Matrix4& matrix, const Point& spacing) {
  for (std::size_t row = 0; row < 3; ++row) {
    for (std::size_t column = 0; column < 3; ++column) {
      if (std::abs(q.m[row][column] - matrix[row * 4 + column]) > 1e-3 * spacing[column]) return false;
    }
  }
  return true;
}

template <class Real, class Header>
void fill_geometry(const Geometry& geometry, Header& h) {
  const Matrix4& m = geometry.voxel_to_world;
  const Point spacing = geometry.spacing_mm();
  nifti_dmat44 matrix{};
  for (int row = 0; row < 4; ++row) {
    for (int column = 0; column < 4; ++column) {
      matrix.m[row][column] = m[static_cast<std::size_t>(row * 4 + column)];
    }
  }
  double b = 0, c = 0, d = 0, x = 0, y = 0, z = 0, dx = 0, dy = 0, dz = 0, qfac = 1;
  nifti_dmat44_to_quatern(matrix, &b, &c, &d, &x, &y, &z, &dx, &dy, &dz, &qfac);
  const bool has_qform =
      qform_represents(nifti_quatern_to_dmat44(b, c, d, x, y, z, dx, dy, dz, qfac), m, spacing);
  std::fill(std::begin(h.pixdim), std::end(h.pixdim), Real{1});
  h.pixdim[0] = static_cast<Real>(qfac);
  for (std::size_t axis = 0; axis < 3; ++axis) h.pixdim[axis + 1] = static_cast<Real>(spacing[axis]);
  h.quatern_b = static_cast<Real>(b);
  h.quatern_c = static_cast<Real>(c);
  h.quatern_d = static_cast<Real>(d);
  h.qoffset_x = static_cast<Real>(x);
  h.qoffset_y = static_cast<Real>(y);
  h.qoffset_z = static_cast<Real>(z);
  for (std::size_t column = 0; column < 4; ++column) {
    h.srow_x[column] = static_cast<Real>(m[column]);
    h.srow_y[column] = static_cast<Real>(m[4 + column]);
    h.srow_z[column] = static_cast<Real>(m[8 + column]);
  }
  const int code = geometry.space_code > 0 ? geometry.space_code : 1;
  h.sform_code = static_cast<decltype(h.sform_code)>(code);
  h.qform_code = static_cast<decltype(h.qform_code)>(has_qform ? code : 0);
}

template <class Real, class Header>
void fill_common(const NiftiHeader& header, Header& h) {
  using Extent = std::remove_reference_t<decltype(h.dim[0])>;
  std::fill(std::begin(h.dim), std::end(h.dim), Extent{1});
  h.dim[0] = static_cast<Extent>(header.extent.size());
  for (std::size_t i = 0; i < header.extent.size(); ++i) h.dim[i + 1] = static_cast<Extent>(header.extent[i]);
  h.datatype = static_cast<short>(header.type);
  h.bitpix = static_cast<short>(8 * size_of(header.type));
  h.scl_slope = Real{1};
  h.intent_code = static_cast<decltype(h.intent_code)>(header.intent_code);
  h.intent_p1 = static_cast<Real>(header.intent_parameters[0]);
  h.intent_p2 = static_cast<Real>(header.intent_parameters[1]);
  h.intent_p3 = static_cast<Real>(header.intent_parameters[2]);
  std::strncpy(h.intent_name, header.intent_name.c_str(), sizeof h.intent_name - 1);
  std::strncpy(h.descrip, "cinnabar", sizeof h.descrip - 1);
  h.xyzt_units = NIFTI_UNITS_MM;
  fill_geometry<Real>(header.geometry, h);
}

template <class Header>
std::vector<std::byte> with_padding(const Header& h, std::size_t data_offset) {
  std::vector<std::byte> bytes(data_offset);  // the four bytes after the header say: no extension
  std::memcpy(bytes.data(), &h, sizeof h);
  return bytes;
}

}  // namespace

std::int64_t NiftiHeader::elements() const {
  std::int64_t product = 1;
  for (const std::int64_t one : extent) product *= one;
  return product;
}

std::int64_t NiftiHeader::data_bytes() const {
  return elements() * static_cast<std::int64_t>(size_of(type));
}

std::string NiftiHeader::extent_text() const {
  std::string text;
  for (const std::int64_t one : extent) text += (text.empty() ? "" : " x ") + std::to_string(one);
  return text;
}

std::size_t size_of(VoxelType type) {
  switch (type) {
    case VoxelType::u8:
    case VoxelType::i8:
      return 1;
    case VoxelType::i16:
    case VoxelType::u16:
      return 2;
    case VoxelType::i32:
    case VoxelType::u32:
    case VoxelType::f32:
      return 4;
    case VoxelType::f64:
    case VoxelType::i64:
    case VoxelType::u64:
      return 8;
  }
  fail("size_of", "unknown voxel type");
}

std::string_view name_of(VoxelType type) {
  switch (type) {
    case VoxelType::u8:
      return "uint8";
    case VoxelType::i8:
      return "int8";
    case VoxelType::i16:
      return "int16";
    case VoxelType::u16:
      return "uint16";
    case VoxelType::i32:
      return "int32";
    case VoxelType::u32:
      return "uint32";
    case VoxelType::i64:
      return "int64";
    case VoxelType::u64:
      return "uint64";
    case VoxelType::f32:
      return "float32";
    case VoxelType::f64:
      return "float64";
  }
  fail("name_of", "unknown voxel type");
}

NiftiHeader parse_nifti_header(std::span<const std::byte> bytes, const std::string& path) {
  std::int32_t declared = 0;
  if (bytes.size() >= sizeof declared) std::memcpy(&declared, bytes.data(), sizeof declared);
  std::int32_t reversed = declared;
  nifti_swap_4bytes(1, &reversed);
  const bool first_version = declared == 348 || reversed == 348;
  const bool second_version = declared == 540 || reversed == 540;
  const bool swapped = declared != 348 && declared != 540;
  if (!first_version && !second_version) fail_header(path, describe_other_format(text_of(bytes)));
  const std::size_t header_bytes = first_version ? sizeof(nifti_1_header) : sizeof(nifti_2_header);
  if (bytes.size() < header_bytes) {
    fail_header(path,
                detail::concat("truncated within the header (", bytes.size(), " bytes); copy it again"));
  }
  const std::string_view magic = text_of(bytes).substr(first_version ? 344 : 4, 4);
  const char* version = first_version ? "1" : "2";
  if (magic == std::string_view(first_version ? "ni1" : "ni2", 4)) {
    fail_header(path, "it is one half of a .hdr/.img pair; convert it to .nii.gz");
  }
  if (magic.substr(0, 2) != "n+" || magic.substr(2, 1) != version || magic[3] != '\0') {
    fail_header(path, "it is ANALYZE or damaged (no NIfTI signature); convert it to .nii.gz");
  }
  if (first_version) {
    nifti_1_header h;
    std::memcpy(&h, bytes.data(), sizeof h);
    if (swapped) nifti_swap_as_nifti1(&h);
    return interpret(h, sizeof h, swapped, path);
  }
  nifti_2_header h;
  std::memcpy(&h, bytes.data(), sizeof h);
  if (swapped) nifti_swap_as_nifti2(&h);
  return interpret(h, sizeof h, swapped, path);
}

std::vector<std::byte> build_nifti_header(const NiftiHeader& header) {
  const std::int64_t largest = *std::max_element(header.extent.begin(), header.extent.end());
  if (largest <= std::numeric_limits<short>::max()) {
    nifti_1_header h{};
    h.sizeof_hdr = 348;
    h.regular = 'r';
    h.vox_offset = 352.0f;
    std::memcpy(h.magic, "n+1", 4);
    fill_common<float>(header, h);
    return with_padding(h, 352);
  }
  nifti_2_header h{};
  h.sizeof_hdr = 540;
  h.vox_offset = 544;
  std::memcpy(h.magic, "n+2\0\r\n\032\n", 8);
  fill_common<double>(header, h);
  return with_padding(h, 544);
}

}  // namespace cinnabar::registration
