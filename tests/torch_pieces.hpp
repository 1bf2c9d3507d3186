#pragma once

// Files as PyTorch and Torch's own readers meet them, put together from pieces by hand.

#include <gtest/gtest.h>
#include <zlib.h>

#include <cstring>

#include "engine/torch_file.hpp"
#include "tests/scratch_folder.hpp"
#include "tests/tensors.hpp"

namespace cinnabar::testing {

template <class T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

// Pieces of pickles. A value is the code that leaves it on the stack.
inline std::string text(const std::string& value) {
  return detail::concat('X', raw(static_cast<std::uint32_t>(value.size())), value);
}
inline std::string whole(std::int32_t value) {
  return 'J' + raw(value);
}
inline std::string global(const std::string& module, const std::string& name) {
  return detail::concat('c', module, '\n', name, '\n');
}
inline std::string tuple(const std::vector<std::string>& items) {
  std::string code = "(";
  for (const std::string& item : items) code += item;
  code += 't';
  return code;
}
inline std::string dict(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string code = "}(";
  for (const auto& [key, value] : entries) code += text(key) + value;
  code += 'u';
  return code;
}
inline std::string call(const std::string& module, const std::string& name, const std::string& arguments) {
  return global(module, name) + arguments + 'R';
}
inline std::string pickled(const std::string& value) {
  return detail::concat("\x80\x02", value, '.');
}
inline std::string wholes(const std::vector<std::int32_t>& values) {
  std::vector<std::string> items;
  for (const std::int32_t value : values) items.push_back(whole(value));
  return tuple(items);
}
inline std::string storage(const std::string& type, const std::string& key, std::int32_t count,
                           const std::string& part = "N") {
  return tuple({text("storage"), global("torch", type), text(key), text("cpu"), whole(count), part}) + 'Q';
}
inline std::string tensor(const std::string& stored, std::int32_t offset,
                          const std::vector<std::int32_t>& sizes, const std::vector<std::int32_t>& strides) {
  return call("torch._utils", "_rebuild_tensor_v2",
              tuple({stored, whole(offset), wholes(sizes), wholes(strides), "\x89", "}"}));
}

const std::string kMagic("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);

template <class T>
inline std::string stored(const std::vector<T>& values) {
  std::string bytes = raw(static_cast<std::uint64_t>(values.size()));
  for (const T& value : values) bytes += raw(value);
  return bytes;
}

/// A stream with the object and its storages (key and bytes with their count in front).
std::string stream_file(const std::string& object,
                        const std::vector<std::pair<std::string, std::string>>& storages = {}) {
  std::string keys = "](", data;
  for (const auto& [key, bytes] : storages) {
    keys += text(key);
    data += bytes;
  }
  return kMagic + pickled(whole(1001)) + pickled(dict({{"little_endian", "\x88"}})) + pickled(object) +
         pickled(keys + 'e') + data;
}

struct ZipEntry {
  std::string name;
  std::string content;
  bool deflated = false;
};

inline std::string deflate_bytes(const std::string& content) {
  z_stream stream{};
  deflateInit2(&stream, 9, Z_DEFLATED, -MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  std::string packed(deflateBound(&stream, content.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(content.data()));
  stream.avail_in = static_cast<uInt>(content.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

inline std::string zip_file(const std::vector<ZipEntry>& entries) {
  std::string file, directory;
  for (const auto& [name, content, deflated] : entries) {
    const std::string packed = deflated ? deflate_bytes(content) : content;
    const auto checksum = static_cast<std::uint32_t>(
        crc32(0, reinterpret_cast<const Bytef*>(content.data()), static_cast<uInt>(content.size())));
    const std::string common =
        raw<std::uint16_t>(0) + raw<std::uint16_t>(deflated ? 8 : 0) + raw<std::uint32_t>(0) + raw(checksum) +
        raw(static_cast<std::uint32_t>(packed.size())) + raw(static_cast<std::uint32_t>(content.size())) +
        raw(static_cast<std::uint16_t>(name.size())) + raw<std::uint16_t>(0);
    directory += raw<std::uint32_t>(0x02014b50) + raw<std::uint16_t>(20) + raw<std::uint16_t>(20) + common +
                 std::string(10, '\0') + raw(static_cast<std::uint32_t>(file.size())) + name;
    file += raw<std::uint32_t>(0x04034b50) + raw<std::uint16_t>(20) + common + name + packed;
  }
  const auto begin = static_cast<std::uint32_t>(file.size());
  const auto count = static_cast<std::uint16_t>(entries.size());
  return file + directory + raw<std::uint32_t>(0x06054b50) + std::string(4, '\0') + raw(count) + raw(count) +
         raw(static_cast<std::uint32_t>(directory.size())) + raw(begin) + std::string(2, '\0');
}

inline std::string tar_file(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string file;
  for (const auto& [name, content] : entries) {
    std::string header(512, '\0');
    char size[12];
    std::snprintf(size, sizeof(size), "%011zo", content.size());
    header.replace(0, name.size(), name).replace(124, 11, size).replace(257, 5, "ustar");
    header[156] = '0';
    file += header + content;
    file.resize((file.size() + 511) / 512 * 512, '\0');
  }
  return file + std::string(1024, '\0');
}

class TorchFile : public ::testing::Test {
 protected:
  TorchValue load(const std::string& bytes) {
    write_bytes(path_, bytes);
    EXPECT_TRUE(is_torch_file(path_));
    return load_torch_file(path_);
  }
  Tensor load_tensor(const std::string& bytes) { return *load(bytes).as<Tensor>(); }

  /// Expects an InputError of one short line that names the file and gives the reason.
  void expect_refused(const std::string& bytes, const std::string& reason) {
    write_bytes(path_, bytes);
    reset_peak_memory(DeviceType::cpu);
    try {
      load_torch_file(path_);
      ADD_FAILURE() << "accepted; expected: " << reason;
    } catch (const InputError& error) {
      const std::string message = error.what();
      EXPECT_NE(message.find(path_.string()), std::string::npos) << message;
      EXPECT_NE(message.find(reason), std::string::npos) << message;
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
      EXPECT_LT(message.size(), 500u);
    }
    EXPECT_LE(memory_use(DeviceType::cpu).peak_bytes,
              static_cast<std::int64_t>(4 * bytes.size() + (2 << 20)));
  }

  ScratchFolder folder_;
  const std::filesystem::path path_ = folder_ / "file.pth.tar";
};

}  // namespace cinnabar::testing
