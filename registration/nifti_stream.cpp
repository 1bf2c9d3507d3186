#include "registration/nifti_stream.hpp"

#include <fcntl.h>
#include <nifti2_io.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "engine/error.hpp"
#include "kernels/parallel.hpp"

namespace cinnabar::registration {

namespace {

constexpr std::int64_t kBlock = 1 << 20;
constexpr std::int64_t kGrain = 1 << 16;
/// Deflate cannot compress better than this, so a compressed file's size bounds its content.
constexpr double kLargestRatio = 1032.0;

template <class Function>
void dispatch_voxel_type(VoxelType type, Function&& fn) {
  switch (type) {
    case VoxelType::u8:
      return fn(std::uint8_t{});
    case VoxelType::i8:
      return fn(std::int8_t{});
    case VoxelType::i16:
      return fn(std::int16_t{});
    case VoxelType::u16:
      return fn(std::uint16_t{});
    case VoxelType::i32:
      return fn(std::int32_t{});
    case VoxelType::u32:
      return fn(std::uint32_t{});
    case VoxelType::i64:
      return fn(std::int64_t{});
    case VoxelType::u64:
      return fn(std::uint64_t{});
    case VoxelType::f32:
      return fn(float{});
    case VoxelType::f64:
      return fn(double{});
  }
}

template <class T>
T saturate(double value) {
  if constexpr (std::is_floating_point_v<T>) {
    return static_cast<T>(value);
  } else {
    if (std::isnan(value)) return 0;
    const double rounded = std::nearbyint(value);
    if (rounded <= static_cast<double>(std::numeric_limits<T>::min())) return std::numeric_limits<T>::min();
    if (rounded >= static_cast<double>(std::numeric_limits<T>::max())) return std::numeric_limits<T>::max();
    return static_cast<T>(rounded);
  }
}

}  // namespace

NiftiReader::NiftiReader(const std::filesystem::path& path) : path_(path.string()) {
  // O_NONBLOCK: a pipe given by mistake must not hang before it is refused.
  const int descriptor = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0) {
    const int error = errno;
    if (error == ENOENT) fail("there is no such file; check the name");
    if (error == EACCES) fail("permission denied; make the file readable (chmod +r)");
    fail(std::strerror(error));
  }
  struct stat status {};
  const bool known = ::fstat(descriptor, &status) == 0;
  const char* problem = nullptr;
  if (!known) problem = "its size is unknown";
  if (known && S_ISDIR(status.st_mode)) {
    problem = "it is a folder; give a .nii or .nii.gz file (convert DICOM folders with dcm2niix)";
  } else if (known && !S_ISREG(status.st_mode)) {
    problem = "it is not a regular file; save the image to disk first";
  } else if (known && status.st_size == 0) {
    problem = "the file is empty; copy or export it again";
  }
  if (problem != nullptr) {
    ::close(descriptor);
    fail(problem);
  }
  file_bytes_ = status.st_size;
  file_ = ::gzdopen(descriptor, "rb");
  if (file_ == nullptr) {
    ::close(descriptor);
    fail("out of memory");
  }
  ::gzbuffer(file_, 1u << 18);
  std::array<std::byte, kNifti2HeaderBytes> bytes{};
  try {
    const std::size_t got = read(bytes.data(), bytes.size());
    compressed_ = ::gzdirect(file_) == 0;
    header_ = parse_nifti_header(std::span(bytes).first(got), path_);
  } catch (...) {
    ::gzclose_r(file_);
    throw;
  }
}

NiftiReader::~NiftiReader() {
  ::gzclose_r(file_);
}

void NiftiReader::fail(const std::string& what) const {
  fail_input("cannot read '", path_, "': ", what);
}

std::size_t NiftiReader::read(void* target, std::size_t bytes) {
  std::size_t done = 0;
  while (done < bytes) {
    const auto step = static_cast<unsigned>(std::min<std::size_t>(bytes - done, std::size_t{1} << 30));
    const int got = ::gzread(file_, static_cast<char*>(target) + done, step);
    if (got <= 0) {
      int error = 0;
      const char* message = ::gzerror(file_, &error);
      if (error == Z_BUF_ERROR) fail("its compressed data end too early; copy or export it again");
      if (error == Z_ERRNO) fail(std::strerror(errno));
      if (got < 0)
        fail(detail::concat("its compressed data are damaged (", message, "); copy or export it again"));
      break;
    }
    done += static_cast<std::size_t>(got);
  }
  position_ += static_cast<std::int64_t>(done);
  return done;
}

void NiftiReader::require_length() const {
  const double needed = static_cast<double>(header_.data_offset) + static_cast<double>(header_.data_bytes());
  const double available = static_cast<double>(file_bytes_) * (compressed_ ? kLargestRatio : 1.0);
  if (needed > available) {
    fail(detail::concat("truncated: its header promises ", header_.extent_text(), " voxels of ",
                        name_of(header_.type), ", more than the file can hold; copy or export it again"));
  }
}

void NiftiReader::read_elements(const Sink& sink) {
  std::array<std::byte, 4096> skipped{};
  while (position_ < header_.data_offset) {
    const auto step = std::min<std::int64_t>(header_.data_offset - position_, skipped.size());
    if (read(skipped.data(), static_cast<std::size_t>(step)) == 0) break;
  }
  const std::int64_t start = header_.data_offset;
  if (position_ > start && ::gzseek(file_, static_cast<z_off_t>(start), SEEK_SET) < 0) fail("cannot rewind");
  const std::int64_t count = header_.elements();
  const std::size_t width = size_of(header_.type);
  std::vector<std::byte> raw(static_cast<std::size_t>(std::min(count, kBlock)) * width);
  std::vector<double> values(static_cast<std::size_t>(std::min(count, kBlock)));
  for (std::int64_t first = 0; first < count; first += kBlock) {
    const std::int64_t size = std::min(kBlock, count - first);
    const std::size_t bytes = static_cast<std::size_t>(size) * width;
    const std::size_t got = read(raw.data(), bytes);
    if (got < bytes) {
      const std::int64_t missing =
          header_.data_bytes() - first * static_cast<std::int64_t>(width) - static_cast<std::int64_t>(got);
      fail(detail::concat("truncated: ", missing, " of ", header_.data_bytes(),
                          " bytes of voxels are missing; copy or export it again"));
    }
    if (header_.swapped && width > 1) nifti_swap_Nbytes(size, static_cast<int>(width), raw.data());
    dispatch_voxel_type(header_.type, [&](auto type) {
      parallel_for(size, kGrain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          decltype(type) stored;
          std::memcpy(&stored, raw.data() + i * static_cast<std::int64_t>(width), width);
          values[static_cast<std::size_t>(i)] =
              static_cast<double>(stored) * header_.slope + header_.intercept;
        }
      });
    });
    sink(first, std::span<const double>(values).first(static_cast<std::size_t>(size)));
  }
  // One byte more makes zlib compare the checksum when the voxels end the stream.
  read(skipped.data(), 1);
}

void write_nifti(const std::filesystem::path& path, const NiftiHeader& header, const Source& source) {
  OutputFile file(path);
  const std::string name = path.filename().string();
  if (!name.ends_with(".nii") && !name.ends_with(".nii.gz")) {
    fail_input("cannot write '", path.string(), "': give a name that ends in .nii or .nii.gz");
  }
  file.write(build_nifti_header(header));
  const std::int64_t count = header.elements();
  const std::size_t width = size_of(header.type);
  std::vector<std::byte> raw(static_cast<std::size_t>(std::min(count, kBlock)) * width);
  std::vector<double> values(static_cast<std::size_t>(std::min(count, kBlock)));
  for (std::int64_t first = 0; first < count; first += kBlock) {
    const std::int64_t size = std::min(kBlock, count - first);
    source(first, std::span(values).first(static_cast<std::size_t>(size)));
    dispatch_voxel_type(header.type, [&](auto type) {
      parallel_for(size, kGrain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          const auto stored = saturate<decltype(type)>(values[static_cast<std::size_t>(i)]);
          std::memcpy(raw.data() + i * static_cast<std::int64_t>(width), &stored, width);
        }
      });
    });
    file.write(std::span<const std::byte>(raw).first(static_cast<std::size_t>(size) * width));
  }
  file.commit();
}

}  // namespace cinnabar::registration
