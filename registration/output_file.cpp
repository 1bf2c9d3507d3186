#include "registration/output_file.hpp"

#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "engine/error.hpp"
#include "kernels/parallel.hpp"

namespace cinnabar::registration {

namespace {

constexpr std::size_t kChunkBytes = std::size_t{1} << 19;
constexpr std::size_t kGroupBytes = 32 * kChunkBytes;
// Floats hardly compress better at higher levels, and level 1 is several times faster.
constexpr int kLevel = 1;

/// One chunk as raw deflate blocks that end on a byte boundary, so chunks can follow each other in one
/// stream.
std::vector<std::byte> deflate_chunk(std::span<const std::byte> chunk, bool last) {
  z_stream stream{};
  CINNABAR_CHECK(deflateInit2(&stream, kLevel, Z_DEFLATED, -MAX_WBITS, 9, Z_DEFAULT_STRATEGY) == Z_OK, "gzip",
                 "deflateInit2 failed");
  std::vector<std::byte> result(deflateBound(&stream, static_cast<uLong>(chunk.size())) + 16);
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(chunk.data()));
  stream.avail_in = static_cast<uInt>(chunk.size());
  stream.next_out = reinterpret_cast<Bytef*>(result.data());
  stream.avail_out = static_cast<uInt>(result.size());
  const int status = deflate(&stream, last ? Z_FINISH : Z_SYNC_FLUSH);
  result.resize(result.size() - stream.avail_out);
  deflateEnd(&stream);
  CINNABAR_CHECK(status == (last ? Z_STREAM_END : Z_OK), "gzip", "deflate failed with ", status);
  return result;
}

std::array<std::byte, 4> little_endian(std::uint32_t value) {
  std::array<std::byte, 4> bytes{};
  for (std::size_t i = 0; i < 4; ++i) bytes[i] = static_cast<std::byte>(value >> (8 * i) & 0xffu);
  return bytes;
}

}  // namespace

OutputFile::OutputFile(const std::filesystem::path& path) : path_(path), gzip_(path.extension() == ".gz") {
  static std::atomic<unsigned> counter{0};
  const std::string name = path_.filename().string();
  if (name.empty() || name == "." || name == "..") {
    fail_input("cannot write '", path_.string(), "': it names no file");
  }
  std::error_code ignored;
  if (std::filesystem::is_directory(path_, ignored)) {
    fail_input("cannot write '", path_.string(), "': it is a folder; give a file name");
  }
  if (std::filesystem::exists(path_, ignored) && !std::filesystem::is_regular_file(path_, ignored)) {
    fail_input("cannot write '", path_.string(), "': it is a device or a pipe; give a file name");
  }
  // A link stays, and what it leads to is replaced.
  target_ =
      std::filesystem::is_symlink(path_, ignored) ? std::filesystem::weakly_canonical(path_, ignored) : path_;
  const std::filesystem::path folder = target_.has_parent_path() ? target_.parent_path() : ".";
  if (!std::filesystem::is_directory(folder, ignored)) {
    fail_input("cannot write '", path_.string(), "': there is no folder '", folder.string(), "'; create it");
  }
  // The stem is cut so that a long but valid name still leaves room for the suffix.
  temporary_ = folder / detail::concat(".", name.substr(0, 180), ".", ::getpid(), ".", counter++, ".partial");
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail_write(errno);
  if (gzip_) {
    static constexpr std::array<unsigned char, 10> kHeader{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255};
    write_to_disk(std::as_bytes(std::span(kHeader)));
  }
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void OutputFile::write(std::string_view text) {
  write(std::as_bytes(std::span(text)));
}

void OutputFile::write(std::span<const std::byte> bytes) {
  if (!gzip_) return write_to_disk(bytes);
  while (!bytes.empty()) {
    const std::size_t count = std::min(bytes.size(), kGroupBytes - pending_.size());
    pending_.insert(pending_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(count));
    bytes = bytes.subspan(count);
    if (pending_.size() == kGroupBytes) compress(false);
  }
}

void OutputFile::compress(bool last) {
  const std::size_t chunks = std::max<std::size_t>(1, (pending_.size() + kChunkBytes - 1) / kChunkBytes);
  std::vector<std::vector<std::byte>> compressed(chunks);
  std::vector<uLong> crcs(chunks);
  const std::span<const std::byte> all(pending_);
  parallel_for(static_cast<std::int64_t>(chunks), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::size_t i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      const std::size_t first = i * kChunkBytes;
      const auto chunk = all.subspan(first, std::min(kChunkBytes, all.size() - first));
      compressed[i] = deflate_chunk(chunk, last && i + 1 == chunks);
      crcs[i] = ::crc32(0, reinterpret_cast<const Bytef*>(chunk.data()), static_cast<uInt>(chunk.size()));
    }
  });
  for (std::size_t i = 0; i < chunks; ++i) {
    const std::size_t size = std::min(kChunkBytes, all.size() - i * kChunkBytes);
    crc_ = static_cast<std::uint32_t>(::crc32_combine(crc_, crcs[i], static_cast<z_off_t>(size)));
    write_to_disk(compressed[i]);
  }
  length_ += static_cast<std::uint32_t>(pending_.size());
  pending_.clear();
}

void OutputFile::commit() {
  if (gzip_) {
    compress(true);
    write_to_disk(little_endian(crc_));
    write_to_disk(little_endian(length_));
  }
  const int descriptor = descriptor_;
  descriptor_ = -1;
  if (::close(descriptor) != 0) fail_write(errno);
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail_write(errno);
  temporary_.clear();
}

void OutputFile::write_to_disk(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail_write(errno);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void OutputFile::fail_write(int error) const {
  const char* remedy = "";
  if (error == ENOSPC || error == EDQUOT) remedy = "; free some space or write elsewhere";
  if (error == EACCES || error == EROFS || error == EPERM) remedy = "; choose a folder you may write to";
  fail_input("cannot write '", path_.string(), "': ", std::strerror(error), remedy);
}

void write_bytes(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  OutputFile file(path);
  file.write(bytes);
  file.commit();
}

void write_text(const std::filesystem::path& path, std::string_view text) {
  OutputFile file(path);
  file.write(text);
  file.commit();
}

std::string checksum(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<char> block(1 << 20);
  uLong crc = crc32(0L, Z_NULL, 0);
  while (file.read(block.data(), static_cast<std::streamsize>(block.size())) || file.gcount() > 0) {
    crc = crc32(crc, reinterpret_cast<const Bytef*>(block.data()), static_cast<uInt>(file.gcount()));
  }
  char text[9];
  std::snprintf(text, sizeof text, "%08lx", crc);
  return text;
}

}  // namespace cinnabar::registration
