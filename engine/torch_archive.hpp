#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/dtype.hpp"
#include "engine/pickle.hpp"

namespace cinnabar {

/// How PyTorch stores numbers of one type. Integers of 8 and 16 bits become wider: no dtype is that short.
struct TorchElement {
  std::string_view name;  ///< "Float", as in torch.FloatStorage
  std::size_t bytes;
  DType dtype;
};

/// Some numbers of the file.
struct TorchStorage {
  const TorchElement* element = nullptr;
  std::span<const std::byte> bytes = {};
};

/// A tensor on a storage: element (i, j, ...) is number offset + i strides[0] + j strides[1] + ...
struct TorchView {
  TorchStorage storage = {};
  std::int64_t offset = 0;
  std::vector<std::int64_t> sizes = {};
  std::vector<std::int64_t> strides = {};
};

/// What PyTorch saved, in any of its containers: one pickled object, and numbers beside it.
struct TorchArchive {
  Pickle object;
  /// The bytes of the storage with a key.
  std::function<std::span<const std::byte>(const std::string& key)> storage;
  /// The tensors of a tar container by their persistent identifiers.
  std::map<std::int64_t, TorchView> tensors;
};

/// A persistent identifier ("storage", type, key, location, count) or, for a part of the storage, (...,
/// count, (key, offset, count)).
struct TorchIdentifier {
  const TorchElement* element = nullptr;
  std::string key;
  std::uint64_t count = 0;  ///< elements of the whole storage
  std::uint64_t part_offset = 0;
  std::uint64_t part_count = 0;
};

/// Parses such a tuple; nothing for identifiers of other things. Throws InputError.
std::optional<TorchIdentifier> torch_identifier(const Pickle& pickle, const PickleNode& identifier);

/// Whether these are the first bytes of a file that torch.save wrote.
bool is_torch_archive(std::span<const std::byte> file);

/// Opens the zip container of today, the stream before it (2017 to 2020) or the tar container of the first
/// versions. `file` must outlive the archive. Throws InputError.
TorchArchive open_torch_archive(std::span<const std::byte> file);

}  // namespace cinnabar
