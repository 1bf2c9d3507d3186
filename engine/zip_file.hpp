#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace cinnabar {

/// The entries of a zip archive in memory: stored or deflated, with the 64-bit extensions. Lengths, places
/// and checksums are all verified; entries that overlap or inflate to far more than the archive are refused.
/// Throws InputError.
class ZipFile {
 public:
  /// `archive` must outlive the object.
  explicit ZipFile(std::span<const std::byte> archive);

  std::vector<std::string> names() const;
  bool contains(const std::string& name) const { return entries_.contains(name); }
  /// An entry's bytes, where they lie in the archive or, deflated ones, in this object.
  std::span<const std::byte> read(const std::string& name);

 private:
  struct Entry {
    bool deflated = false;
    std::uint32_t checksum = 0;
    std::uint64_t packed = 0;    ///< bytes in the archive
    std::uint64_t unpacked = 0;  ///< bytes of the content
    std::uint64_t begin = 0;     ///< of the data in the archive
    bool verified = false;
    std::vector<std::byte> inflated = {};
  };
  struct Directory {
    std::uint64_t count = 0;
    std::uint64_t begin = 0;
  };

  template <class T>
  T number_at(std::uint64_t position) const;
  std::string text_at(std::uint64_t position, std::uint64_t length) const;
  Directory find_directory() const;
  std::uint64_t read_entry(std::uint64_t position);
  void read_wide_numbers(std::uint64_t position, std::uint64_t length, Entry& entry) const;
  void check_places(std::uint64_t directory) const;

  std::span<const std::byte> archive_;
  std::map<std::string, Entry> entries_;
};

}  // namespace cinnabar
