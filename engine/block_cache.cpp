#include "engine/block_cache.hpp"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <limits>

#include <sys/mman.h>

namespace cinnabar {

namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kHugePage = std::size_t{2} << 20;

constexpr std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

/// The size that is allocated: blocks of sizes less than an eighth apart can take each other's place.
std::size_t capacity(std::size_t bytes) {
  if (bytes < BlockCache::kSmallest) return std::max(round_up(bytes, kAlignment), kAlignment);
  return round_up(bytes, std::bit_floor(bytes) / 8);
}

/// Memory of a capacity. Large blocks ask for huge pages, which spare most page faults and, where volumes are
/// sampled out of order, address translations.
void* allocate(std::size_t bytes) {
  const bool large = bytes >= 2 * kHugePage;
  void* const block =
      std::aligned_alloc(large ? kHugePage : kAlignment, large ? round_up(bytes, kHugePage) : bytes);
#ifdef MADV_HUGEPAGE
  if (large && block != nullptr) madvise(block, bytes, MADV_HUGEPAGE);  // only a hint
#endif
  return block;
}

}  // namespace

void* BlockCache::take(std::size_t bytes) {
  if (bytes > std::numeric_limits<std::size_t>::max() / 2) return nullptr;
  const std::size_t wanted = capacity(bytes);
  if (!kKeeps || wanted < kSmallest) return allocate(wanted);
  const std::lock_guard lock(mutex_);
  void* block = nullptr;
  // The block that was given back last: its pages are the likeliest to be in the processor's caches.
  const auto found =
      std::find_if(kept_.rbegin(), kept_.rend(), [&](const Kept& k) { return k.bytes == wanted; });
  if (found != kept_.rend()) {
    block = found->block;
    kept_.erase(std::next(found).base());
    kept_bytes_ -= wanted;
  } else {
    const std::size_t used = used_bytes_ + wanted;
    make_room(std::max(peak_bytes_, used) - used);
    block = allocate(wanted);
    if (block == nullptr) {
      make_room(0);
      block = allocate(wanted);
    }
    if (block == nullptr) return nullptr;
  }
  used_bytes_ += wanted;
  peak_bytes_ = std::max(peak_bytes_, used_bytes_);
  return block;
}

void BlockCache::give(void* block, std::size_t bytes) {
  const std::size_t size = capacity(bytes);
  if (!kKeeps || size < kSmallest) {
    std::free(block);
    return;
  }
  const std::lock_guard lock(mutex_);
  kept_.push_back({block, size});
  kept_bytes_ += size;
  used_bytes_ -= size;
}

void BlockCache::release() {
  const std::lock_guard lock(mutex_);
  make_room(0);
}

std::size_t BlockCache::kept_bytes() const {
  const std::lock_guard lock(mutex_);
  return kept_bytes_;
}

/// Frees the oldest blocks until at most `most` bytes are kept.
void BlockCache::make_room(std::size_t most) {
  auto end = kept_.begin();
  for (; kept_bytes_ > most; ++end) {
    std::free(end->block);
    kept_bytes_ -= end->bytes;
  }
  kept_.erase(kept_.begin(), end);
}

}  // namespace cinnabar
