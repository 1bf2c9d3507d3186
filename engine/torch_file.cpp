#include "engine/torch_file.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <map>
#include <span>

#include "engine/mapped_file.hpp"
#include "engine/printable.hpp"
#include "engine/torch_archive.hpp"

namespace cinnabar {

namespace {

using Kind = PickleNode::Kind;
using Index = PickleNode::Index;

constexpr int kMaxDepth = 64;
constexpr std::size_t kNodeCost = 64;        ///< bytes, about what a value takes
constexpr std::size_t kMaxCost = 256 << 20;  ///< bytes of the values but for tensors: shared ones multiply
/// Bytes of tensors in bytes of the file, and beyond that: tensors may share storages, but not without end.
constexpr std::size_t kMaxSharing = 4;
constexpr std::size_t kFreeSharing = 1 << 20;

/// Copies elements of `unit` bytes, the last axis innermost.
void gather(const TorchView& view, std::size_t unit, const std::byte* from, std::byte* to) {
  const std::size_t rank = view.sizes.size();
  std::vector<std::int64_t> position(rank, 0);
  std::int64_t element = view.offset;
  for (;;) {
    std::memcpy(to, from + static_cast<std::size_t>(element) * unit, unit);
    to += unit;
    std::size_t axis = rank;
    for (; axis > 0; --axis) {
      element += view.strides[axis - 1];
      if (++position[axis - 1] < view.sizes[axis - 1]) break;
      element -= view.strides[axis - 1] * view.sizes[axis - 1];
      position[axis - 1] = 0;
    }
    if (axis == 0) return;
  }
}

template <class T>
Tensor widened(const std::vector<std::byte>& packed, const Shape& shape) {
  std::vector<std::int32_t> values(packed.size() / sizeof(T));
  for (std::size_t i = 0; i < values.size(); ++i) {
    T value;
    std::memcpy(&value, packed.data() + i * sizeof(T), sizeof(T));
    values[i] = value;
  }
  return Tensor::from(values, shape);
}

/// The number of elements of a view that lies within its storage.
std::int64_t checked_count(const TorchView& view) {
  if (view.sizes.size() > Shape::kMaxRank || view.sizes.size() != view.strides.size()) {
    fail_input("a tensor has rank ", view.sizes.size(), " with ", view.strides.size(), " strides");
  }
  std::int64_t count = 1, last = view.offset;
  bool fits = view.offset >= 0;
  for (std::size_t axis = 0; axis < view.sizes.size(); ++axis) {
    std::int64_t reach = 0;
    const std::int64_t size = view.sizes[axis], stride = view.strides[axis];
    fits = fits && size >= 0 && stride >= 0 && !__builtin_mul_overflow(count, size, &count) &&
           (size == 0 || (!__builtin_mul_overflow(size - 1, stride, &reach) &&
                          !__builtin_add_overflow(last, reach, &last)));
  }
  const auto stored = static_cast<std::int64_t>(view.storage.bytes.size() / view.storage.element->bytes);
  if (!fits || (count > 0 && last >= stored)) fail_input("a tensor lies outside of its storage");
  return count;
}

/// Turns the nodes of a pickle into values.
class Builder {
 public:
  Builder(const TorchArchive& archive, std::size_t file_bytes)
      : archive_(archive), tensor_bytes_left_(kMaxSharing * file_bytes + kFreeSharing) {}

  TorchValue build() { return value(archive_.object.root, 0); }

 private:
  const PickleNode& node(Index index) const { return archive_.object.node(index); }
  const PickleNode& item(const PickleNode& sequence, std::size_t index, Kind kind) const {
    return archive_.object.item(sequence, index, kind);
  }

  TorchValue value(Index index, int depth) {
    const PickleNode& source = node(index);
    const std::size_t cost = kNodeCost + source.text.size();
    if (depth > kMaxDepth) fail_input("its values are nested too deeply");
    if (cost > kMaxCost - cost_) fail_input("its values repeat each other too often");
    cost_ += cost;
    switch (source.kind) {
      case Kind::none:
        return {};
      case Kind::boolean:
        return {source.whole != 0};
      case Kind::whole:
        return {source.whole};
      case Kind::real:
        return {source.real};
      case Kind::text:
        return {source.text};
      case Kind::list:
      case Kind::tuple:
        return list(source, depth);
      case Kind::dict:
        return dict(source, depth);
      case Kind::call:
        return called(index, depth);
      case Kind::persistent:
        return {tensor_of_archive(source)};
      case Kind::global:
        fail_input("the name ", printable(source.text), " stands where a value should");
    }
    fail_input("it has a value of no kind");
  }

  TorchValue list(const PickleNode& source, int depth) {
    TorchValue::List items;
    for (const Index index : source.items) items.push_back(value(index, depth + 1));
    return {std::move(items)};
  }

  TorchValue dict(const PickleNode& source, int depth) {
    TorchValue::Dict entries;
    for (std::size_t i = 0; i < source.items.size(); i += 2) {
      const PickleNode& key = node(source.items[i]);
      if (key.kind != Kind::text && key.kind != Kind::whole) {
        fail_input("a key is neither a string nor a whole number");
      }
      cost_ += std::min(key.text.size(), kMaxCost - cost_);
      entries.emplace_back(key.kind == Kind::text ? key.text : std::to_string(key.whole),
                           value(source.items[i + 1], depth + 1));
    }
    return {std::move(entries)};
  }

  TorchValue called(Index index, int depth) {
    const PickleNode& call = node(index);
    const std::string& name = node(call.items[0]).text;
    const PickleNode& arguments = node(call.items[1]);
    if (name == "torch._utils._rebuild_tensor" || name == "torch._utils._rebuild_tensor_v2") {
      return {tensor_of_call(index, arguments)};
    }
    if (name == "torch._utils._rebuild_parameter" || name == "torch.Size") {
      if (arguments.items.empty()) fail_input("a call of ", name, " has no arguments");
      return value(arguments.items.front(), depth + 1);
    }
    if (name.ends_with("multiarray.scalar")) return numpy_scalar(arguments);
    if (name == "_codecs.encode") return {latin1(arguments)};
    fail_input("a call of ", printable(name), " stands where a value should");
  }

  /// Arguments: the storage, the offset, the sizes, the strides and others that say nothing of the values.
  Tensor tensor_of_call(Index index, const PickleNode& arguments) {
    const auto known = tensors_.find(index);
    if (known != tensors_.end()) return known->second;
    const PickleNode& reference = item(arguments, 0, Kind::persistent);
    const auto identifier = torch_identifier(archive_.object, node(reference.items.front()));
    if (!identifier) fail_input("a tensor refers to something that is not a storage");
    const std::span<const std::byte> all = archive_.storage(identifier->key);
    const std::size_t unit = identifier->element->bytes;
    if (all.size() % unit != 0 || all.size() / unit != identifier->count) {
      fail_input("storage ", printable(identifier->key), " has not the length that the file says");
    }
    TorchView view;
    view.storage = {identifier->element,
                    all.subspan(identifier->part_offset * unit, identifier->part_count * unit)};
    view.offset = item(arguments, 1, Kind::whole).whole;
    view.sizes = wholes(item(arguments, 2, Kind::tuple));
    view.strides = wholes(item(arguments, 3, Kind::tuple));
    return tensors_.emplace(index, materialise(view)).first->second;
  }

  std::vector<std::int64_t> wholes(const PickleNode& sequence) const {
    std::vector<std::int64_t> values;
    for (std::size_t i = 0; i < std::min<std::size_t>(sequence.items.size(), Shape::kMaxRank + 1); ++i) {
      values.push_back(item(sequence, i, Kind::whole).whole);
    }
    return values;
  }

  /// In tar containers an identifier is the number of a tensor, as a number or in digits.
  Tensor tensor_of_archive(const PickleNode& reference) {
    const PickleNode& identifier = node(reference.items.front());
    for (const auto& [key, view] : archive_.tensors) {
      const bool same = identifier.kind == Kind::whole
                            ? identifier.whole == key
                            : identifier.kind == Kind::text && identifier.text == std::to_string(key);
      if (!same) continue;
      const auto known = archived_.find(key);
      return known != archived_.end() ? known->second
                                      : archived_.emplace(key, materialise(view)).first->second;
    }
    fail_input("it refers to a tensor that it does not hold");
  }

  Tensor materialise(const TorchView& view) {
    const std::int64_t count = checked_count(view);
    const TorchElement& element = *view.storage.element;
    const Shape shape(view.sizes);
    const std::size_t wanted = std::max(element.bytes, size_of(element.dtype));
    if (static_cast<std::uint64_t>(count) > tensor_bytes_left_ / wanted) {
      fail_input("its tensors are far larger than the file");
    }
    tensor_bytes_left_ -= static_cast<std::size_t>(count) * wanted;
    if (element.bytes == size_of(element.dtype)) {
      Tensor result = Tensor::empty(shape, element.dtype);
      if (count > 0) {
        gather(view, element.bytes, view.storage.bytes.data(), static_cast<std::byte*>(result.raw()));
      }
      return result;
    }
    std::vector<std::byte> packed(static_cast<std::size_t>(count) * element.bytes);
    if (count > 0) gather(view, element.bytes, view.storage.bytes.data(), packed.data());
    return element.bytes == 1 ? widened<std::int8_t>(packed, shape) : widened<std::int16_t>(packed, shape);
  }

  /// Arguments: dtype("f8", ...) with the state (3, "<", ...), and the bytes.
  TorchValue numpy_scalar(const PickleNode& arguments) {
    const PickleNode& dtype = item(arguments, 0, Kind::call);
    const std::string& type = item(node(dtype.items[1]), 0, Kind::text).text;
    const bool stated = dtype.items.size() == 3;
    const std::string order = stated ? item(node(dtype.items[2]), 1, Kind::text).text : "<";
    if (arguments.items.size() < 2) fail_input("a NumPy number has no bytes");
    const PickleNode& content = node(arguments.items[1]);
    const std::string bytes = content.kind == Kind::call ? latin1(node(content.items[1])) : content.text;
    if (order == "<" || order == "|") {
      if (type == "f8") return {number_in<double>(bytes)};
      if (type == "f4") return {static_cast<double>(number_in<float>(bytes))};
      if (type == "i8") return {number_in<std::int64_t>(bytes)};
      if (type == "i4") return {static_cast<std::int64_t>(number_in<std::int32_t>(bytes))};
      if (type == "b1") return {number_in<std::uint8_t>(bytes) != 0};
    }
    fail_input("a NumPy number has the unknown type ", printable(order + type));
  }

  template <class T>
  static T number_in(const std::string& bytes) {
    if (bytes.size() != sizeof(T)) fail_input("a NumPy number has ", bytes.size(), " bytes");
    T value;
    std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }

  /// Python 3 writes bytes as _codecs.encode(text, "latin1"), where UTF-8 spells each byte as a character.
  std::string latin1(const PickleNode& arguments) const {
    const std::string& text = item(arguments, 0, Kind::text).text;
    std::string bytes;
    for (std::size_t i = 0; i < text.size(); ++i) {
      const auto first = static_cast<unsigned char>(text[i]);
      if (first < 0x80) {
        bytes += text[i];
        continue;
      }
      if ((first != 0xc2 && first != 0xc3) || i + 1 == text.size()) fail_input("a text is not latin1");
      bytes += static_cast<char>(((first & 3) << 6) | (text[++i] & 0x3f));
    }
    return bytes;
  }

  const TorchArchive& archive_;
  std::size_t tensor_bytes_left_;
  std::size_t cost_ = 0;
  std::map<Index, Tensor> tensors_;
  std::map<std::int64_t, Tensor> archived_;
};

}  // namespace

const TorchValue* TorchValue::find(std::string_view key) const {
  const Dict* dict = as<Dict>();
  if (dict == nullptr) return nullptr;
  const auto found =
      std::find_if(dict->rbegin(), dict->rend(), [key](const auto& entry) { return entry.first == key; });
  return found == dict->rend() ? nullptr : &found->second;
}

std::optional<double> TorchValue::number() const {
  if (const auto* whole = as<std::int64_t>()) return static_cast<double>(*whole);
  if (const auto* real = as<double>()) return *real;
  return std::nullopt;
}

bool is_torch_file(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return false;  // a pipe would be waited for
  std::ifstream file(path, std::ios::binary);
  std::array<char, 512> first{};
  file.read(first.data(), first.size());
  return is_torch_archive(std::as_bytes(std::span(first.data(), static_cast<std::size_t>(file.gcount()))));
}

TorchValue load_torch_file(const std::filesystem::path& path) {
  const MappedFile file(path);
  try {
    const auto bytes = std::as_bytes(std::span(file.bytes(), file.size()));
    const TorchArchive archive = open_torch_archive(bytes);
    return Builder(archive, bytes.size()).build();
  } catch (const InputError& error) {
    fail_input(path.string(), ": not a readable PyTorch file: ", error.what());
  }
}

}  // namespace cinnabar
