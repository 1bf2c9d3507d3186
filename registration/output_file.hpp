#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cinnabar::registration {

/// A file that appears under its name only when it is complete: written beside it under a temporary name,
/// renamed by `commit`, removed by the destructor otherwise. A name that ends in ".gz" is compressed, in
/// chunks on all threads; the bytes do not depend on the number of threads. Every failure (no such folder,
/// no permission, disk full) throws InputError naming the file.
class OutputFile {
 public:
  explicit OutputFile(const std::filesystem::path& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  void commit();

 private:
  void write_to_disk(std::span<const std::byte> bytes);
  void compress(bool last);
  [[noreturn]] void fail_write(int error) const;

  std::filesystem::path path_;
  std::filesystem::path target_;  ///< where a link leads, else path_
  std::filesystem::path temporary_;
  int descriptor_ = -1;
  bool gzip_ = false;
  std::vector<std::byte> pending_;
  std::uint32_t crc_ = 0;
  std::uint32_t length_ = 0;  ///< modulo 2^32, as gzip's trailer wants it
};

/// A whole file at once.
void write_bytes(const std::filesystem::path& path, std::span<const std::byte> bytes);
void write_text(const std::filesystem::path& path, std::string_view text);

/// CRC-32 of a file's bytes, as 8 hexadecimal digits: enough to tell whether an input changed.
std::string checksum(const std::filesystem::path& path);

}  // namespace cinnabar::registration
