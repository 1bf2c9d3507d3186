#include "engine/safetensors.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "engine/mapped_file.hpp"

namespace cinnabar {

namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "tensor data are copied as they lie in the file");

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
constexpr const char* kMetadataKey = "__metadata__";

constexpr std::array<std::pair<DType, const char*>, 7> kDTypeNames{{{DType::f32, "F32"},
                                                                    {DType::f64, "F64"},
                                                                    {DType::f16, "F16"},
                                                                    {DType::bf16, "BF16"},
                                                                    {DType::i32, "I32"},
                                                                    {DType::i64, "I64"},
                                                                    {DType::u8, "U8"}}};

const char* file_name_of(DType dtype) {
  for (const auto& [known, name] : kDTypeNames) {
    if (known == dtype) return name;
  }
  fail("safetensors", "unknown dtype");
}

std::optional<DType> dtype_of_name(const std::string& name) {
  for (const auto& [dtype, known] : kDTypeNames) {
    if (name == known) return dtype;
  }
  return std::nullopt;
}

/// Where one tensor lies: bytes begin..end of the data behind the header.
struct Entry {
  DType dtype = DType::f32;
  Shape shape;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
};

/// A string of the file for a message: in quotes, on one line, whatever it holds.
std::string quoted(const std::string& text) {
  return json(text).dump(-1, ' ', true, json::error_handler_t::replace);
}

std::uint64_t unsigned_number(const json& value, const char* what) {
  if (!value.is_number_unsigned()) fail_input(what, " is not a list of non-negative integers");
  return value.get<std::uint64_t>();
}

Shape parse_shape(const json& value) {
  if (!value.is_array()) fail_input("shape is not a list");
  if (value.size() > Shape::kMaxRank) {
    fail_input("rank ", value.size(), " is above the limit of ", Shape::kMaxRank);
  }
  std::vector<std::int64_t> extents;
  std::int64_t product = 1;
  for (const json& element : value) {
    const std::uint64_t extent = unsigned_number(element, "shape");
    if (!std::in_range<std::int64_t>(extent)) fail_input("an extent does not fit 64 bits");
    extents.push_back(static_cast<std::int64_t>(extent));
    if (__builtin_mul_overflow(product, extents.back(), &product)) {
      fail_input("the number of elements does not fit 64 bits");
    }
  }
  return Shape(extents);
}

Entry parse_entry(const json& value) {
  if (!value.is_object()) fail_input("the description is not an object");
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    if (!value.contains(key)) fail_input("'", key, "' is missing");
  }
  if (value.size() != 3) fail_input("unknown keys beside dtype, shape and data_offsets");
  Entry entry;
  const json& dtype = value["dtype"];
  const auto known = dtype.is_string() ? dtype_of_name(dtype.get<std::string>()) : std::nullopt;
  if (!known) fail_input("dtype ", dtype.dump(-1, ' ', true), " is not supported");
  entry.dtype = *known;
  entry.shape = parse_shape(value["shape"]);
  const json& offsets = value["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2) fail_input("data_offsets is not a pair");
  entry.begin = unsigned_number(offsets[0], "data_offsets");
  entry.end = unsigned_number(offsets[1], "data_offsets");
  if (entry.end < entry.begin) fail_input("data_offsets end before they begin");
  std::uint64_t bytes = 0;
  if (__builtin_mul_overflow(static_cast<std::uint64_t>(entry.shape.numel()), size_of(entry.dtype), &bytes) ||
      bytes != entry.end - entry.begin) {
    fail_input("shape ", entry.shape, " of ", entry.dtype, " does not fill its ", entry.end - entry.begin,
               " bytes");
  }
  return entry;
}

/// Parses the JSON header, refusing repeated names (a plain parse keeps the last) and deep nesting (valid
/// headers have 3 levels, and a tree of 100 MB of brackets would take gigabytes).
json parse_json(const char* first, const char* last) {
  constexpr int kMaxDepth = 3;
  std::vector<std::set<std::string>> keys(kMaxDepth + 1);
  const auto check = [&](int depth, json::parse_event_t event, json& parsed) {
    const auto level = static_cast<std::size_t>(depth);
    if (event == json::parse_event_t::object_start || event == json::parse_event_t::array_start) {
      if (depth >= kMaxDepth) fail_input("the header is nested too deeply");
      keys[level + 1].clear();
    } else if (event == json::parse_event_t::key && !keys[level].insert(parsed.get<std::string>()).second) {
      fail_input("the header names ", parsed.dump(-1, ' ', true), " twice");
    }
    return true;
  };
  try {
    return json::parse(first, last, check);
  } catch (const json::exception&) {
    fail_input("the header is not valid JSON");
  }
}

/// Checks that the tensors tile the data: no hole, no overlap, nothing behind the last.
void check_tiling(const std::map<std::string, Entry>& entries, std::uint64_t data_bytes) {
  std::vector<std::pair<const std::string*, const Entry*>> ordered;
  for (const auto& [name, entry] : entries) ordered.emplace_back(&name, &entry);
  std::sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second->begin, a.second->end) < std::pair(b.second->begin, b.second->end);
  });
  std::uint64_t covered = 0;
  for (const auto& [name, entry] : ordered) {
    if (entry->begin < covered) fail_input("tensor ", quoted(*name), " overlaps another");
    if (entry->begin > covered) fail_input("there is a hole before tensor ", quoted(*name));
    if (entry->end > data_bytes)
      fail_input("the file is truncated: tensor ", quoted(*name), " ends behind it");
    covered = entry->end;
  }
  if (covered != data_bytes) fail_input(data_bytes - covered, " bytes behind the last tensor");
}

}  // namespace

struct SafeTensorsFile::Mapping {
  std::filesystem::path path;
  MappedFile file;
  char* data = nullptr;  ///< behind the header
  std::map<std::string, Entry> entries;
  std::map<std::string, std::string> metadata;

  explicit Mapping(const std::filesystem::path& source) : path(source), file(source) {
    try {
      parse();
    } catch (const InputError& error) {
      fail_input(path.string(), ": not a valid safetensors file: ", error.what());
    }
  }

  const Entry& entry(const std::string& name) const {
    const auto found = entries.find(name);
    if (found == entries.end()) fail_input(path.string(), ": holds no tensor '", name, "'");
    return found->second;
  }

  void parse() {
    if (file.size() < kLengthBytes) fail_input("only ", file.size(), " bytes long");
    std::uint64_t header_bytes = 0;
    std::memcpy(&header_bytes, file.bytes(), kLengthBytes);
    if (header_bytes > kMaxHeaderBytes) fail_input("the header claims ", header_bytes, " bytes");
    if (header_bytes > file.size() - kLengthBytes) fail_input("the file ends inside the header");
    char* header = file.bytes() + kLengthBytes;
    data = header + header_bytes;
    if (header_bytes == 0 || *header != '{') fail_input("the header does not begin with '{'");
    const json root = parse_json(header, data);
    for (const auto& [name, value] : root.items()) {
      if (name == kMetadataKey) {
        parse_metadata(value);
        continue;
      }
      try {
        entries.emplace(name, parse_entry(value));
      } catch (const InputError& error) {
        fail_input("tensor ", quoted(name), ": ", error.what());
      }
    }
    check_tiling(entries, file.size() - kLengthBytes - header_bytes);
  }

  void parse_metadata(const json& value) {
    if (!value.is_object()) fail_input(kMetadataKey, " is not an object");
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) fail_input(kMetadataKey, " entry ", quoted(key), " is not a string");
      metadata.emplace(key, text.get<std::string>());
    }
  }
};

SafeTensorsFile::SafeTensorsFile(const std::filesystem::path& path)
    : mapping_(std::make_shared<const Mapping>(path)) {}
SafeTensorsFile::~SafeTensorsFile() = default;
SafeTensorsFile::SafeTensorsFile(SafeTensorsFile&&) noexcept = default;
SafeTensorsFile& SafeTensorsFile::operator=(SafeTensorsFile&&) noexcept = default;

std::vector<std::string> SafeTensorsFile::names() const {
  std::vector<std::string> result;
  for (const auto& [name, entry] : mapping_->entries) result.push_back(name);
  return result;
}

bool SafeTensorsFile::contains(const std::string& name) const {
  return mapping_->entries.contains(name);
}

Tensor SafeTensorsFile::read(const std::string& name) const {
  const Entry& stored = mapping_->entry(name);
  Tensor result = Tensor::empty(stored.shape, stored.dtype);
  copy_bytes(result.raw(), Device::cpu(), mapping_->data + stored.begin, Device::cpu(), result.bytes());
  return result;
}

Tensor SafeTensorsFile::view(const std::string& name) const {
  const Entry& stored = mapping_->entry(name);
  char* first = mapping_->data + stored.begin;
  if (reinterpret_cast<std::uintptr_t>(first) % size_of(stored.dtype) != 0) return read(name);
  return Tensor::over(std::make_shared<Storage>(first, stored.end - stored.begin, mapping_), stored.shape,
                      stored.dtype);
}

const std::map<std::string, std::string>& SafeTensorsFile::metadata() const {
  return mapping_->metadata;
}

const std::filesystem::path& SafeTensorsFile::path() const {
  return mapping_->path;
}

SafeTensors load_safetensors(const std::filesystem::path& path) {
  const SafeTensorsFile file(path);
  SafeTensors result;
  for (const std::string& name : file.names()) result.tensors.emplace(name, file.read(name));
  result.metadata = file.metadata();
  return result;
}

namespace {

using Ordered = std::vector<std::pair<std::string, Tensor>>;

/// Largest elements first, so that every tensor of a file starts at a multiple of its element size.
Ordered in_file_order(const std::filesystem::path& path, const SafeTensors& content) {
  Ordered ordered;
  for (const auto& [name, tensor] : content.tensors) {
    if (name == kMetadataKey) fail_input(path.string(), ": no tensor can be named ", kMetadataKey);
    CINNABAR_CHECK(tensor.defined(), "save_safetensors", "tensor '", name, "' is undefined");
    ordered.emplace_back(name, tensor);
  }
  std::stable_sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
    return size_of(a.second.dtype()) > size_of(b.second.dtype());
  });
  return ordered;
}

std::string header_of(const std::filesystem::path& path, const Ordered& ordered,
                      const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json root = nlohmann::ordered_json::object();
  if (!metadata.empty()) root[kMetadataKey] = metadata;
  std::uint64_t begin = 0;
  for (const auto& [name, tensor] : ordered) {
    const std::uint64_t end = begin + tensor.bytes();
    const std::vector<std::int64_t> extents(tensor.shape().begin(), tensor.shape().end());
    root[name] = {
        {"dtype", file_name_of(tensor.dtype())}, {"shape", extents}, {"data_offsets", {begin, end}}};
    begin = end;
  }
  std::string header;
  try {
    header = root.dump();
  } catch (const nlohmann::json::exception&) {
    fail_input(path.string(), ": cannot write: a name or a metadata entry is not UTF-8");
  }
  header.resize((header.size() + 7) / 8 * 8, ' ');
  if (header.size() > kMaxHeaderBytes) fail_input(path.string(), ": cannot write: header above 100 MB");
  return header;
}

/// A new file beside its final name; it vanishes unless published.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::filesystem::path& path) : final_(path), temporary_(path), file_(-1) {
    static std::atomic<unsigned> serial{0};
    std::error_code ignored;
    if (std::filesystem::exists(path, ignored) && !std::filesystem::is_regular_file(path, ignored))
      fail_input(path.string(), ": cannot write: it is no regular file; give another name");
    temporary_ += detail::concat(".", ::getpid(), "-", serial++, ".tmp");
    const int opened = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (opened < 0) fail_writing();
    file_ = opened;
  }
  ~TemporaryFile() {
    if (file_ >= 0) ::close(file_);
    if (!published_) ::unlink(temporary_.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  void write(const void* source, std::size_t bytes) {
    const char* next = static_cast<const char*>(source);
    while (bytes > 0) {
      const ssize_t written = ::write(file_, next, std::min(bytes, std::size_t{1} << 30));
      if (written < 0 && errno == EINTR) continue;
      if (written < 0) fail_writing();
      next += written;
      bytes -= static_cast<std::size_t>(written);
    }
  }

  void publish() {
    if (::fsync(file_) != 0) fail_writing();
    if (::close(std::exchange(file_, -1)) != 0) fail_writing();
    if (::rename(temporary_.c_str(), final_.c_str()) != 0) fail_writing();
    published_ = true;
  }

 private:
  [[noreturn]] void fail_writing() const {
    const int reason = errno;
    fail_input(final_.string(), ": cannot write: ", std::strerror(reason));
  }

  std::filesystem::path final_;
  std::filesystem::path temporary_;
  int file_;
  bool published_ = false;
};

}  // namespace

void save_safetensors(const std::filesystem::path& path, const SafeTensors& content) {
  const Ordered ordered = in_file_order(path, content);
  const std::string header = header_of(path, ordered, content.metadata);
  const std::uint64_t header_bytes = header.size();
  TemporaryFile file(path);
  file.write(&header_bytes, kLengthBytes);
  file.write(header.data(), header.size());
  for (const auto& [name, tensor] : ordered) {
    const Tensor host = tensor.to(Device::cpu());
    file.write(host.raw(), host.bytes());
  }
  file.publish();
}

}  // namespace cinnabar
