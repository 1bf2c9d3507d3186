#include "models/pair_draws.hpp"

#include <algorithm>

#include "data/permutation.hpp"

namespace cinnabar {

namespace {

constexpr std::uint64_t kOrder = std::uint64_t{0x6F726472} << 32;  // streams of the seed
constexpr std::uint64_t kCoins = std::uint64_t{0x636F696E} << 32;

void mirror_left_right(Tensor& image) {
  float* value = image.data<float>();
  const std::int64_t width = image.shape(4);
  for (std::int64_t row = 0; row < image.numel(); row += width)
    std::reverse(value + row, value + row + width);
}

}  // namespace

ImagePair image_pair(const VolumeSet& volumes, std::int64_t volume) {
  const Tensor start = Tensor::from<std::int32_t>({static_cast<std::int32_t>(volume), 0, 0, 0}, {1, 4});
  const Batch images = volumes.gather(start, volumes.spatial(volume));
  return {images.at("moving"), images.at("target")};
}

PairDraws::PairDraws(VolumeSet volumes, const PairDrawOptions& options)
    : volumes_(std::move(volumes)), options_(options) {}

ImagePair PairDraws::operator()(std::int64_t draw) const {
  const auto count = static_cast<std::uint64_t>(volumes_.size());
  const auto number = static_cast<std::uint64_t>(draw);
  const Permutation order(count, options_.seed, kOrder + number / count);
  ImagePair pair = image_pair(volumes_, static_cast<std::int64_t>(order(number % count)));
  const PhiloxWords coins = philox_4x32_10(options_.seed, kCoins, number);
  if (options_.swap && (coins.word[0] & 1u) != 0) std::swap(pair.moving, pair.fixed);
  if (options_.mirror && (coins.word[1] & 1u) != 0) {
    mirror_left_right(pair.moving);
    mirror_left_right(pair.fixed);
  }
  return pair;
}

}  // namespace cinnabar
