#pragma once

#include <cstddef>
#include <filesystem>

namespace cinnabar {

/// The bytes of a regular file in memory, read when they are first touched. What is written to them stays in
/// memory. Throws InputError naming the file when it cannot be read.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  char* bytes() const { return bytes_; }
  std::size_t size() const { return size_; }

 private:
  char* bytes_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace cinnabar
