#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>

#include "registration/nifti_header.hpp"
#include "registration/output_file.hpp"

struct gzFile_s;

namespace cinnabar::registration {

/// An open NIfTI file whose header is checked and whose voxels are read in blocks. libnifti's own reader is
/// not used: it prints to stderr and allocates what the header claims before it looks at the file.
class NiftiReader {
 public:
  explicit NiftiReader(const std::filesystem::path& path);
  ~NiftiReader();
  NiftiReader(const NiftiReader&) = delete;
  NiftiReader& operator=(const NiftiReader&) = delete;

  const NiftiHeader& header() const { return header_; }
  const std::string& path() const { return path_; }
  [[noreturn]] void fail(const std::string& what) const;

  /// Throws when the file is certainly too short for what its header claims. Call before allocating.
  void require_length() const;

  /// Hands over all elements in file order, scaled, as doubles: sink(index of the first, values).
  using Sink = std::function<void(std::int64_t first, std::span<const double> values)>;
  void read_elements(const Sink& sink);

 private:
  std::size_t read(void* target, std::size_t bytes);

  std::string path_;
  std::int64_t file_bytes_ = 0;
  bool compressed_ = false;
  gzFile_s* file_ = nullptr;
  std::int64_t position_ = 0;
  NiftiHeader header_;
};

/// Writes header and voxels in blocks; `source` fills the values starting at an element index. Integers are
/// rounded and saturate.
using Source = std::function<void(std::int64_t first, std::span<double> values)>;
void write_nifti(const std::filesystem::path& path, const NiftiHeader& header, const Source& source);

}  // namespace cinnabar::registration
