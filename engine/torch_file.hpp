#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "engine/tensor.hpp"

namespace cinnabar {

/// A value of a PyTorch file.
struct TorchValue {
  using List = std::vector<TorchValue>;  ///< lists and tuples
  /// Dictionaries in the order of the file, with whole numbers as keys in decimal digits.
  using Dict = std::vector<std::pair<std::string, TorchValue>>;
  struct None {};

  std::variant<None, bool, std::int64_t, double, std::string, Tensor, List, Dict> content;

  /// Null where the value is of another type.
  template <class T>
  const T* as() const {
    return std::get_if<T>(&content);
  }
  /// A whole or real number as a double.
  std::optional<double> number() const;
  /// The entry of a dictionary, the last one with that key; null where there is none.
  const TorchValue* find(std::string_view key) const;
};

/// Whether a file begins as those that torch.save writes. False for files that cannot be read.
bool is_torch_file(const std::filesystem::path& path);

/// Reads a .pth or .pth.tar file by torch.save, of any version: dictionaries, lists, tuples, numbers (NumPy's
/// scalars too), strings and tensors, these contiguous and on the CPU wherever they were. Nothing in the file
/// is ever executed: names beyond those few are refused, and time and memory stay in proportion to the file.
/// Throws InputError naming the file.
TorchValue load_torch_file(const std::filesystem::path& path);

}  // namespace cinnabar
