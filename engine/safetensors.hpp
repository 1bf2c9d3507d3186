#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/tensor.hpp"

namespace cinnabar {

/// Tensors by name with string metadata: the content of one safetensors file.
struct SafeTensors {
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;
};

/// Reads a whole file into CPU tensors. Throws InputError naming the file when it is missing, truncated or
/// not a valid safetensors file (bad header, unknown dtype, holes, overlaps, size mismatch, header over 100
/// MB).
SafeTensors load_safetensors(const std::filesystem::path& path);

/// Writes under a temporary name and renames, so a file is never half-written.
void save_safetensors(const std::filesystem::path& path, const SafeTensors& content);

/// A memory-mapped file whose tensors are read one at a time, or used in place.
class SafeTensorsFile {
 public:
  explicit SafeTensorsFile(const std::filesystem::path& path);
  ~SafeTensorsFile();
  SafeTensorsFile(SafeTensorsFile&&) noexcept;
  SafeTensorsFile& operator=(SafeTensorsFile&&) noexcept;

  std::vector<std::string> names() const;
  bool contains(const std::string& name) const;
  /// A CPU copy of one tensor. Throws InputError naming file and tensor when it is absent.
  Tensor read(const std::string& name) const;
  /// The same tensor where it lies in the mapping, which lives on with it: pages are read when they are first
  /// touched, and what is written to the tensor stays in memory. Data that are not aligned to their elements
  /// are copied. A file must not be shortened while it is mapped: the system then ends the process.
  Tensor view(const std::string& name) const;
  const std::map<std::string, std::string>& metadata() const;
  const std::filesystem::path& path() const;

 private:
  struct Mapping;
  std::shared_ptr<const Mapping> mapping_;
};

}  // namespace cinnabar
