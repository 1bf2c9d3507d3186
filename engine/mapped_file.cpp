#include "engine/mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "engine/error.hpp"

namespace cinnabar {

MappedFile::MappedFile(const std::filesystem::path& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // waits for no pipe
  if (file < 0) fail_input(path.string(), ": cannot read: ", std::strerror(errno));
  struct stat status {};
  const bool regular = ::fstat(file, &status) == 0 && S_ISREG(status.st_mode);
  size_ = static_cast<std::size_t>(status.st_size);
  void* mapped = MAP_FAILED;
  if (regular && size_ > 0) {
    mapped = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file, 0);
  }
  const int reason = errno;
  ::close(file);
  if (!regular) fail_input(path.string(), ": not a regular file");
  if (size_ == 0) return;
  if (mapped == MAP_FAILED) fail_input(path.string(), ": cannot map: ", std::strerror(reason));
  bytes_ = static_cast<char*>(mapped);
}

MappedFile::~MappedFile() {
  if (bytes_ != nullptr) ::munmap(bytes_, size_);
}

}  // namespace cinnabar
