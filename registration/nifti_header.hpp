#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "registration/image.hpp"

namespace cinnabar::registration {

/// What a NIfTI-1 or NIfTI-2 header says, checked and in the host's byte order.
struct NiftiHeader {
  std::vector<std::int64_t> extent;  ///< as many as the header has dimensions, x first, each at least 1
  VoxelType type = VoxelType::f32;
  double slope = 1.0;  ///< value = stored * slope + intercept
  double intercept = 0.0;
  std::int64_t data_offset = 352;
  bool swapped = false;
  int intent_code = 0;
  std::array<double, 3> intent_parameters{};
  std::string intent_name;
  Geometry geometry;

  std::int64_t elements() const;
  std::int64_t data_bytes() const;
  std::string extent_text() const;
};

inline constexpr std::size_t kNifti2HeaderBytes = 540;

std::size_t size_of(VoxelType type);
std::string_view name_of(VoxelType type);

/// Reads the first bytes of a file (at least 540 where the file has them). Throws InputError naming `path`
/// for anything that is not a NIfTI header of real scalars with a usable geometry.
NiftiHeader parse_nifti_header(std::span<const std::byte> bytes, const std::string& path);

/// Header and padding up to the data: NIfTI-1, or NIfTI-2 where an extent exceeds 32767. `extent`, `type`,
/// `geometry` and the intent are used; slope and intercept are written as 1 and 0.
std::vector<std::byte> build_nifti_header(const NiftiHeader& header);

}  // namespace cinnabar::registration
