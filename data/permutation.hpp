#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "engine/random.hpp"

namespace cinnabar {

/// A random order of 0 .. count - 1 without a table: the swap-or-not shuffle (Hoang, Morris and Rogaway, "An
/// enciphering scheme based on a card shuffle", CRYPTO 2012) with Philox as its coin. Every round pairs the
/// places x and K - x modulo count, for a random K, and swaps each pair or not. Unlike a Feistel network it
/// takes any count as it is, and small counts get all their orders about equally often.
class Permutation {
 public:
  /// count >= 1 and below 2^62; seed and stream choose the order.
  Permutation(std::uint64_t count, std::uint64_t seed, std::uint64_t stream)
      : count_(count), key_(word_64(philox_4x32_10(seed, stream, 0))) {
    for (std::uint64_t round = 0; round < kRounds; ++round) {
      sum_[round] = word_64(philox_4x32_10(key_, kRounds, round)) % count;
    }
  }

  /// Where `place`, below count, goes.
  std::uint64_t operator()(std::uint64_t place) const {
    for (std::uint64_t round = 0; round < kRounds; ++round) {
      const std::uint64_t sum = sum_[round];
      const std::uint64_t partner = sum >= place ? sum - place : sum + count_ - place;
      const PhiloxWords coin = philox_4x32_10(key_, round, std::max(place, partner));
      if ((coin.word[0] & 1u) != 0) place = partner;
    }
    return place;
  }

 private:
  static constexpr std::uint64_t kRounds = 64;

  static std::uint64_t word_64(const PhiloxWords& words) {
    return std::uint64_t{words.word[1]} << 32 | words.word[0];
  }

  std::uint64_t count_, key_;
  std::array<std::uint64_t, kRounds> sum_{};
};

}  // namespace cinnabar
