#pragma once

// Deterministic scattering without atomics. Items are sorted by the slab of the target they write (a stable
// counting sort), slab b writes slabs b and b + 1 only, so all even slabs run in parallel and then all odd
// ones. Each target element receives its addends in one fixed order whatever the number of threads.

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "engine/error.hpp"
#include "kernels/parallel.hpp"

namespace cinnabar::cpu {

constexpr std::int32_t kNoSlab = -1;

/// Calls deposit(items of slab b in ascending order) for every slab in [0, slabs) that has any; never for b
/// at the same time as for b - 1 or b + 1. find_slabs(begin, end, slab) writes the slab of items
/// begin..end-1, or kNoSlab, to slab[0..].
template <class FindSlabs, class Deposit>
void scatter_by_slab(std::int64_t items, std::int64_t slabs, const FindSlabs& find_slabs,
                     const Deposit& deposit) {
  CINNABAR_CHECK(items <= std::numeric_limits<std::uint32_t>::max() && slabs < (std::int64_t{1} << 30),
                 "scatter", items, " items are too many");
  constexpr std::int64_t kChunk = 8192;
  const std::int64_t chunks = (items + kChunk - 1) / kChunk;
  const auto size = [](std::int64_t count) { return static_cast<std::size_t>(count); };
  std::vector<std::int32_t> slab(size(items));
  // first[chunk * slabs + s]: number of items of slab s in the chunk, later where the first of them goes.
  std::vector<std::int64_t> first(size(chunks * slabs), 0);
  parallel_for(items, kChunk, [&](std::int64_t begin, std::int64_t end) {
    std::int64_t* count = first.data() + begin / kChunk * slabs;
    find_slabs(begin, end, slab.data() + begin);
    for (std::int64_t item = begin; item < end; ++item) {
      const std::int32_t key = slab[size(item)];
      if (key != kNoSlab) ++count[key];
    }
  });

  std::vector<std::int64_t> slab_begin(size(slabs + 1), 0);
  std::int64_t total = 0;
  for (std::int64_t s = 0; s < slabs; ++s) {
    slab_begin[size(s)] = total;
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
      const std::int64_t count = first[size(chunk * slabs + s)];
      first[size(chunk * slabs + s)] = total;
      total += count;
    }
  }
  slab_begin[size(slabs)] = total;

  std::vector<std::uint32_t> order(size(total));
  parallel_for(items, kChunk, [&](std::int64_t begin, std::int64_t end) {
    std::int64_t* next = first.data() + begin / kChunk * slabs;
    for (std::int64_t item = begin; item < end; ++item) {
      const std::int32_t key = slab[size(item)];
      if (key != kNoSlab) order[size(next[key]++)] = static_cast<std::uint32_t>(item);
    }
  });

  for (std::int64_t parity = 0; parity < 2; ++parity) {
    parallel_for((slabs + 1 - parity) / 2, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t s = 2 * begin + parity; s < 2 * end + parity; s += 2) {
        const std::int64_t count = slab_begin[size(s + 1)] - slab_begin[size(s)];
        if (count > 0) deposit(std::span(order.data() + slab_begin[size(s)], size(count)));
      }
    });
  }
}

}  // namespace cinnabar::cpu
