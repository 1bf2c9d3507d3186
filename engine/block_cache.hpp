#pragma once

#include <cstddef>
#include <mutex>
#include <vector>

namespace cinnabar {

/// Host memory that is kept when it is given back, for the next block of about the same size. An iteration
/// over whole volumes asks for the same large blocks again and again, and the system would clear their pages
/// anew each time, which took a third of a registration at 1 mm. Blocks below kSmallest are not kept.
///
/// Blocks in use and blocks kept together never exceed the most that was ever in use: what is kept longest
/// is freed first. Thread-safe.
class BlockCache {
 public:
  static constexpr std::size_t kSmallest = std::size_t{1} << 20;
  /// Not under a sanitizer, which tells when a block is used after it was given back.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  static constexpr bool kKeeps = false;
#else
  static constexpr bool kKeeps = true;
#endif

  BlockCache() = default;
  ~BlockCache() {
    release();
  }
  BlockCache(const BlockCache&) = delete;
  BlockCache& operator=(const BlockCache&) = delete;

  /// At least `bytes` bytes, 64-byte aligned and uninitialised; null where there is no memory left.
  void* take(std::size_t bytes);
  /// Gives back what take(bytes) returned.
  void give(void* block, std::size_t bytes);
  /// Frees all blocks that are kept.
  void release();

  std::size_t kept_bytes() const;

 private:
  struct Kept {
    void* block;
    std::size_t bytes;
  };

  void make_room(std::size_t most);

  mutable std::mutex mutex_;
  std::vector<Kept> kept_;  ///< oldest first
  std::size_t kept_bytes_ = 0;
  std::size_t used_bytes_ = 0;
  std::size_t peak_bytes_ = 0;
};

}  // namespace cinnabar
