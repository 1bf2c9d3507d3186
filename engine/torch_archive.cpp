#include "engine/torch_archive.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <memory>
#include <utility>

#include "engine/error.hpp"
#include "engine/printable.hpp"
#include "engine/shape.hpp"
#include "engine/zip_file.hpp"

namespace cinnabar {

namespace {

using Kind = PickleNode::Kind;
using Bytes = std::span<const std::byte>;

constexpr std::array<TorchElement, 10> kElements{{{"Float", 4, DType::f32},
                                                  {"Double", 8, DType::f64},
                                                  {"Half", 2, DType::f16},
                                                  {"BFloat16", 2, DType::bf16},
                                                  {"Long", 8, DType::i64},
                                                  {"Int", 4, DType::i32},
                                                  {"Short", 2, DType::i32},
                                                  {"Char", 1, DType::i32},
                                                  {"Byte", 1, DType::u8},
                                                  {"Bool", 1, DType::u8}}};

/// All names a file may refer to beside storage and tensor types. None of them is called.
constexpr std::array<std::string_view, 9> kAllowed{"collections.OrderedDict",
                                                   "torch._utils._rebuild_tensor",
                                                   "torch._utils._rebuild_tensor_v2",
                                                   "torch._utils._rebuild_parameter",
                                                   "torch.Size",
                                                   "numpy.dtype",
                                                   "numpy.core.multiarray.scalar",
                                                   "numpy._core.multiarray.scalar",
                                                   "_codecs.encode"};

/// The pickle of the number that streams begin with.
constexpr std::string_view kStreamMagic{"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15};
constexpr std::string_view kZipMagic{"PK\x03\x04"};
constexpr std::int64_t kStreamProtocol = 1001;

/// The element of "torch.FloatSUFFIX" or "torch.cuda.FloatSUFFIX"; null for other names.
const TorchElement* element_named(std::string_view global, std::string_view suffix) {
  for (const std::string_view module : {"torch.cuda.", "torch."}) {
    if (!global.starts_with(module) || !global.ends_with(suffix)) continue;
    const std::string_view name = global.substr(module.size());
    for (const TorchElement& element : kElements) {
      if (name.size() == element.name.size() + suffix.size() && name.starts_with(element.name)) {
        return &element;
      }
    }
  }
  return nullptr;
}

const TorchElement* storage_element(const PickleNode& type) {
  const TorchElement* element = element_named(type.text, "Storage");
  if (element == nullptr) fail_input("it stores numbers as ", printable(type.text), ", which is not known");
  return element;
}

Pickle read_torch_pickle(Bytes bytes) {
  return read_pickle(bytes, [](std::string_view name) {
    return std::find(kAllowed.begin(), kAllowed.end(), name) != kAllowed.end() ||
           element_named(name, "Storage") != nullptr || element_named(name, "Tensor") != nullptr;
  });
}

std::string_view text_of(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Reads one thing after another.
class Stream {
 public:
  explicit Stream(Bytes bytes) : bytes_(bytes) {}

  Bytes take(std::uint64_t count) {
    if (count > bytes_.size() - at_) fail_input("the file is truncated");
    at_ += count;
    return bytes_.subspan(at_ - count, count);
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::vector<std::int64_t> numbers(std::size_t count) {
    std::vector<std::int64_t> values(count);
    for (std::int64_t& value : values) value = number<std::int64_t>();
    return values;
  }
  Pickle pickle() {
    Pickle result = read_torch_pickle(bytes_.subspan(at_));
    at_ += result.bytes;
    return result;
  }
  /// A pickle of one whole number.
  std::int64_t whole() {
    const Pickle pickled = pickle();
    if (pickled.node(pickled.root).kind != Kind::whole) fail_input("a number is missing");
    return pickled.node(pickled.root).whole;
  }
  /// A storage as it lies in streams: the number of elements and the elements.
  TorchStorage storage(const TorchElement* element) {
    const auto count = number<std::uint64_t>();
    if (count > bytes_.size() / element->bytes) fail_input("the file is truncated: it ends in a storage");
    return {element, take(count * element->bytes)};
  }

 private:
  Bytes bytes_;
  std::size_t at_ = 0;
};

/// The byte order that a file states; all known machines write the one we read.
void require_little_endian(bool little) {
  if (!little) fail_input("its numbers are big-endian; save it again on another machine");
}

TorchArchive open_zip(Bytes file) {
  const auto zip = std::make_shared<ZipFile>(file);
  const std::string object = "/data.pkl";
  std::string folder;
  for (const std::string& name : zip->names()) {
    if (name.ends_with(object)) folder = name.substr(0, name.size() - object.size());
  }
  if (folder.empty()) fail_input("it is a zip archive without data.pkl, not one by torch.save");
  if (zip->contains(folder + "/byteorder")) {
    require_little_endian(text_of(zip->read(folder + "/byteorder")) == "little");
  }
  return {read_torch_pickle(zip->read(folder + object)),
          [zip, folder](const std::string& key) { return zip->read(folder + "/data/" + key); },
          {}};
}

/// Storages by key for an archive that owns them.
using Storages = std::map<std::string, TorchStorage>;
std::function<Bytes(const std::string&)> finder(Storages storages) {
  return [storages = std::move(storages)](const std::string& key) {
    const auto found = storages.find(key);
    if (found == storages.end()) fail_input("it holds no storage ", printable(key));
    return found->second.bytes;
  };
}

/// A magic number, a protocol number, facts of the machine, the object, the keys of the storages and, in that
/// order, the storages; how long their elements are stands in the object's identifiers only.
TorchArchive open_stream(Bytes file) {
  Stream stream(file);
  stream.take(kStreamMagic.size());
  const std::int64_t protocol = stream.whole();
  if (protocol != kStreamProtocol) fail_input("it has the unknown protocol ", protocol);
  const Pickle machine = stream.pickle();
  const PickleNode& facts = machine.node(machine.root);
  for (std::size_t i = 0; facts.kind == Kind::dict && i < facts.items.size(); i += 2) {
    if (machine.node(facts.items[i]).text != "little_endian") continue;
    require_little_endian(machine.node(facts.items[i + 1]).whole == 1);
  }
  TorchArchive archive{stream.pickle(), {}, {}};
  std::map<std::string, const TorchElement*> elements;
  for (const PickleNode& node : archive.object.nodes) {
    if (node.kind != Kind::persistent) continue;
    const auto identifier = torch_identifier(archive.object, archive.object.node(node.items.front()));
    if (identifier) elements.emplace(identifier->key, identifier->element);
  }
  const Pickle keys = stream.pickle();
  const PickleNode& list = keys.node(keys.root);
  Storages storages;
  for (std::size_t i = 0; i < list.items.size(); ++i) {
    const std::string& key = keys.item(list, i, Kind::text).text;
    const auto element = elements.find(key);
    if (element == elements.end()) fail_input("storage ", printable(key), " has no type");
    storages[key] = stream.storage(element->second);
  }
  archive.storage = finder(std::move(storages));
  return archive;
}

/// One plain file of a tar archive; empty where it is missing.
Bytes tar_entry(Bytes file, std::string_view wanted) {
  constexpr std::size_t kBlock = 512;
  for (std::size_t at = 0; file.size() - at >= kBlock;) {
    const std::string_view header = text_of(file.subspan(at, kBlock));
    const std::string_view name = header.substr(0, header.substr(0, 100).find('\0'));
    if (name.empty()) break;
    const std::string_view digits = header.substr(124, 11);
    std::uint64_t size = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), size, 8);
    if (error != std::errc() || (*end != ' ' && *end != '\0')) fail_input("the tar archive is damaged");
    at += kBlock;
    if (size > file.size() - at)
      fail_input("the file is truncated: the tar archive ends in ", printable(name));
    if (name == wanted) return file.subspan(at, size);
    at += std::min<std::uint64_t>((size + kBlock - 1) / kBlock * kBlock, file.size() - at);
  }
  return {};
}

/// Storages: their number, then each as (key, location, type) and its numbers, then (key, root, offset,
/// count) for each part of another storage. Tensors: their number, then each as (key, storage, type) with
/// rank (8 bytes), sizes, strides and offset.
TorchArchive open_tar(Bytes file) {
  Stream stored(tar_entry(file, "storages")), described(tar_entry(file, "tensors"));
  std::map<std::int64_t, TorchStorage> storages;
  for (std::int64_t left = stored.whole(); left > 0; --left) {
    const Pickle id = stored.pickle();
    const PickleNode& triple = id.node(id.root);
    storages[id.item(triple, 0, Kind::whole).whole] =
        stored.storage(storage_element(id.item(triple, 2, Kind::global)));
  }
  const auto storage = [&storages](std::int64_t key) {
    const auto found = storages.find(key);
    if (found == storages.end()) fail_input("it holds no storage ", key);
    return found->second;
  };
  const Pickle parts = stored.pickle();
  for (const PickleNode::Index index : parts.node(parts.root).items) {
    const PickleNode& part = parts.node(index);
    const TorchStorage root = storage(parts.item(part, 1, Kind::whole).whole);
    const auto offset = static_cast<std::uint64_t>(parts.item(part, 2, Kind::whole).whole);
    const auto count = static_cast<std::uint64_t>(parts.item(part, 3, Kind::whole).whole);
    const std::uint64_t all = root.bytes.size() / root.element->bytes;
    if (offset > all || count > all - offset) fail_input("a part of a storage lies outside of it");
    storages[parts.item(part, 0, Kind::whole).whole] = {
        root.element, root.bytes.subspan(offset * root.element->bytes, count * root.element->bytes)};
  }
  TorchArchive archive{read_torch_pickle(tar_entry(file, "pickle")), finder({}), {}};
  for (std::int64_t left = described.whole(); left > 0; --left) {
    const Pickle id = described.pickle();
    const PickleNode& triple = id.node(id.root);
    TorchView view{storage(id.item(triple, 1, Kind::whole).whole)};
    const auto rank =
        described.number<std::uint64_t>() & 0xffffffffu;  // the upper half is not always written
    if (rank > Shape::kMaxRank) fail_input("a tensor has rank ", rank);
    view.sizes = described.numbers(rank);
    view.strides = described.numbers(rank);
    view.offset = described.number<std::int64_t>();
    archive.tensors[id.item(triple, 0, Kind::whole).whole] = std::move(view);
  }
  return archive;
}

bool is_tar(Bytes file) {
  return file.size() >= 512 && text_of(file).substr(257, 5) == "ustar";
}

}  // namespace

std::optional<TorchIdentifier> torch_identifier(const Pickle& pickle, const PickleNode& identifier) {
  if (identifier.kind != Kind::tuple || identifier.items.size() < 5) return std::nullopt;
  if (pickle.item(identifier, 0, Kind::text).text != "storage") return std::nullopt;
  TorchIdentifier result;
  result.element = storage_element(pickle.item(identifier, 1, Kind::global));
  result.key = pickle.item(identifier, 2, Kind::text).text;
  result.count = static_cast<std::uint64_t>(pickle.item(identifier, 4, Kind::whole).whole);
  result.part_count = result.count;
  if (identifier.items.size() > 5 && pickle.node(identifier.items[5]).kind != Kind::none) {
    const PickleNode& part = pickle.item(identifier, 5, Kind::tuple);
    result.part_offset = static_cast<std::uint64_t>(pickle.item(part, 1, Kind::whole).whole);
    result.part_count = static_cast<std::uint64_t>(pickle.item(part, 2, Kind::whole).whole);
    if (result.part_offset > result.count || result.part_count > result.count - result.part_offset) {
      fail_input("a part of a storage lies outside of it");
    }
  }
  return result;
}

bool is_torch_archive(Bytes file) {
  const std::string_view text = text_of(file);
  return text.starts_with(kZipMagic) || text.starts_with(kStreamMagic) || is_tar(file);
}

TorchArchive open_torch_archive(Bytes file) {
  const std::string_view text = text_of(file);
  if (text.starts_with(kZipMagic)) return open_zip(file);
  if (text.starts_with(kStreamMagic)) return open_stream(file);
  if (is_tar(file)) return open_tar(file);
  fail_input("it begins like none of the containers of torch.save");
}

}  // namespace cinnabar
