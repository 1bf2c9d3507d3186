#include "engine/zip_file.hpp"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "engine/error.hpp"
#include "engine/printable.hpp"

namespace cinnabar {

namespace {

// Records of the format (PKWARE's APPNOTE): signatures and the lengths of their fixed parts.
constexpr std::uint32_t kLocalHeader = 0x04034b50;
constexpr std::uint32_t kDirectoryEntry = 0x02014b50;
constexpr std::uint32_t kEnd = 0x06054b50;
constexpr std::uint32_t kWideEnd = 0x06064b50;
constexpr std::uint32_t kWideLocator = 0x07064b50;
constexpr std::uint64_t kLocalBytes = 30;
constexpr std::uint64_t kEntryBytes = 46;
constexpr std::uint64_t kEndBytes = 22;
constexpr std::uint64_t kLocatorBytes = 20;

constexpr std::uint32_t kWide = 0xffffffff;  ///< the true number stands in the 64-bit extension
constexpr std::uint64_t kMaxComment = 0xffff;
constexpr std::uint64_t kMaxEntries = 1 << 20;
constexpr std::uint64_t kMaxGrowth = 16;            ///< of all contents over the archive's bytes,
constexpr std::uint64_t kFreeGrowth = 64ull << 20;  ///< beyond this many: weights hardly shrink

std::vector<std::byte> inflate_bytes(std::span<const std::byte> packed, std::uint64_t unpacked) {
  std::vector<std::byte> content(unpacked);
  z_stream stream{};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) fail_input("zlib cannot start");
  std::size_t taken = 0, given = 0;
  int state = Z_OK;
  while (state == Z_OK) {
    constexpr std::size_t kPiece = 1 << 30;
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(packed.data() + taken));
    stream.avail_in = static_cast<uInt>(std::min(kPiece, packed.size() - taken));
    stream.next_out = reinterpret_cast<Bytef*>(content.data() + given);
    stream.avail_out = static_cast<uInt>(std::min(kPiece, content.size() - given));
    const uInt in = stream.avail_in, out = stream.avail_out;
    state = inflate(&stream, Z_NO_FLUSH);
    taken += in - stream.avail_in;
    given += out - stream.avail_out;
  }
  inflateEnd(&stream);
  if (state != Z_STREAM_END || given != content.size()) fail_input("a deflated entry is damaged");
  return content;
}

std::uint32_t checksum_of(std::span<const std::byte> bytes) {
  return static_cast<std::uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

}  // namespace

template <class T>
T ZipFile::number_at(std::uint64_t position) const {
  if (position > archive_.size() || sizeof(T) > archive_.size() - position) {
    fail_input("the archive is truncated or damaged");
  }
  T value;
  std::memcpy(&value, archive_.data() + position, sizeof(T));
  return value;
}

std::string ZipFile::text_at(std::uint64_t position, std::uint64_t length) const {
  if (position > archive_.size() || length > archive_.size() - position) {
    fail_input("the archive is truncated or damaged");
  }
  return {reinterpret_cast<const char*>(archive_.data()) + position, length};
}

ZipFile::ZipFile(std::span<const std::byte> archive) : archive_(archive) {
  const Directory directory = find_directory();
  std::uint64_t position = directory.begin;
  for (std::uint64_t i = 0; i < directory.count; ++i) position = read_entry(position);
  check_places(directory.begin);
}

/// The end record stands last, before a comment of any length.
ZipFile::Directory ZipFile::find_directory() const {
  if (archive_.size() < kEndBytes) fail_input("the archive is truncated");
  const std::uint64_t last = archive_.size() - kEndBytes;
  const std::uint64_t first = last - std::min(last, kMaxComment);
  std::uint64_t end = last;
  while (number_at<std::uint32_t>(end) != kEnd) {
    if (end == first) fail_input("the archive is truncated: it has no directory");
    --end;
  }
  Directory directory{number_at<std::uint16_t>(end + 10), number_at<std::uint32_t>(end + 16)};
  if (directory.begin == kWide || directory.count == 0xffff) {
    if (end < kLocatorBytes || number_at<std::uint32_t>(end - kLocatorBytes) != kWideLocator) {
      fail_input("the archive's directory is damaged");
    }
    const std::uint64_t wide = number_at<std::uint64_t>(end - kLocatorBytes + 8);
    if (wide > archive_.size() || number_at<std::uint32_t>(wide) != kWideEnd) {
      fail_input("the archive's directory is damaged");
    }
    directory = {number_at<std::uint64_t>(wide + 32), number_at<std::uint64_t>(wide + 48)};
  }
  if (directory.count > kMaxEntries) fail_input("the archive has too many entries");
  return directory;
}

/// Reads one entry of the directory; returns where the next one stands.
std::uint64_t ZipFile::read_entry(std::uint64_t position) {
  if (position > archive_.size() || number_at<std::uint32_t>(position) != kDirectoryEntry) {
    fail_input("the archive's directory is damaged");
  }
  const auto flags = number_at<std::uint16_t>(position + 8);
  const auto method = number_at<std::uint16_t>(position + 10);
  const std::uint64_t name_bytes = number_at<std::uint16_t>(position + 28);
  const std::uint64_t extra_bytes = number_at<std::uint16_t>(position + 30);
  const std::uint64_t comment_bytes = number_at<std::uint16_t>(position + 32);
  const std::string name = text_at(position + kEntryBytes, name_bytes);
  Entry entry;
  entry.deflated = method == 8;
  entry.checksum = number_at<std::uint32_t>(position + 16);
  entry.packed = number_at<std::uint32_t>(position + 20);
  entry.unpacked = number_at<std::uint32_t>(position + 24);
  entry.begin = number_at<std::uint32_t>(position + 42);
  read_wide_numbers(position + kEntryBytes + name_bytes, extra_bytes, entry);
  if ((flags & 1) != 0 || (method != 0 && method != 8) || (method == 0 && entry.packed != entry.unpacked)) {
    fail_input("the archive's entry ", printable(name), " is encrypted or packed in an unknown way");
  }
  const std::uint64_t header = entry.begin;
  if (header > archive_.size() || number_at<std::uint32_t>(header) != kLocalHeader ||
      number_at<std::uint16_t>(header + 26) != name_bytes ||
      text_at(header + kLocalBytes, name_bytes) != name) {
    fail_input("the archive's entry ", printable(name), " is not where the directory says");
  }
  entry.begin += kLocalBytes + name_bytes + number_at<std::uint16_t>(header + 28);
  if (!entries_.emplace(name, entry).second) fail_input("the archive names ", printable(name), " twice");
  return position + kEntryBytes + name_bytes + extra_bytes + comment_bytes;
}

/// The 64-bit extension holds those numbers that do not fit their fields, in a fixed order.
void ZipFile::read_wide_numbers(std::uint64_t position, std::uint64_t length, Entry& entry) const {
  const std::uint64_t end = position + length;
  while (end - position >= 4) {
    const auto identifier = number_at<std::uint16_t>(position);
    const std::uint64_t block = number_at<std::uint16_t>(position + 2);
    position += 4;
    if (block > end - position) fail_input("the archive's directory is damaged");
    if (identifier == 1) {
      std::uint64_t next = position;
      for (std::uint64_t* number : {&entry.unpacked, &entry.packed, &entry.begin}) {
        if (*number != kWide) continue;
        if (next + 8 > position + block) fail_input("the archive's directory is damaged");
        *number = number_at<std::uint64_t>(next);
        next += 8;
      }
    }
    position += block;
  }
}

void ZipFile::check_places(std::uint64_t directory) const {
  std::vector<std::pair<std::uint64_t, std::uint64_t>> places;
  std::uint64_t unpacked = 0;
  const std::uint64_t most = kFreeGrowth + kMaxGrowth * archive_.size();
  for (const auto& [name, entry] : entries_) {
    if (entry.begin > directory || entry.packed > directory - entry.begin) {
      fail_input("the archive is truncated: ", printable(name), " ends behind it");
    }
    places.emplace_back(entry.begin, entry.begin + entry.packed);
    if (entry.unpacked > most - unpacked) fail_input("the archive's entries are far larger than the archive");
    unpacked += entry.unpacked;
  }
  std::sort(places.begin(), places.end());
  for (std::size_t i = 1; i < places.size(); ++i) {
    if (places[i].first < places[i - 1].second) fail_input("the archive's entries overlap");
  }
}

std::vector<std::string> ZipFile::names() const {
  std::vector<std::string> result;
  for (const auto& [name, entry] : entries_) result.push_back(name);
  return result;
}

std::span<const std::byte> ZipFile::read(const std::string& name) {
  const auto found = entries_.find(name);
  if (found == entries_.end()) fail_input("the archive has no entry ", printable(name));
  Entry& entry = found->second;
  const std::span<const std::byte> packed = archive_.subspan(entry.begin, entry.packed);
  if (entry.deflated && !entry.verified) entry.inflated = inflate_bytes(packed, entry.unpacked);
  const std::span<const std::byte> content =
      entry.deflated ? std::span<const std::byte>(entry.inflated) : packed;
  if (!entry.verified && checksum_of(content) != entry.checksum) {
    fail_input("the archive's entry ", printable(name), " is damaged");
  }
  entry.verified = true;
  return content;
}

}  // namespace cinnabar
