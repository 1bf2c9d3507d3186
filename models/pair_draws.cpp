#include "models/pair_draws.hpp"

#include "data/permutation.hpp"
#include "models/quicksilver_patches.hpp"

namespace cinnabar {

namespace {

constexpr std::uint64_t kOrder = std::uint64_t{0x6F726472} << 32;  // streams of the seed
constexpr std::uint64_t kCoins = std::uint64_t{0x636F696E} << 32;

}  // namespace

Batch whole_volume(const VolumeSet& volumes, std::int64_t volume) {
  const Tensor start = Tensor::from<std::int32_t>({static_cast<std::int32_t>(volume), 0, 0, 0}, {1, 4});
  return volumes.gather(start, volumes.spatial(volume));
}

ImagePair image_pair(const Batch& images, Device device) {
  return {images.at("moving").to(device), images.at("target").to(device)};
}

PairDraws::PairDraws(VolumeSet volumes, const PairDrawOptions& options)
    : volumes_(std::move(volumes)), options_(options) {}

Batch PairDraws::operator()(std::int64_t draw) const {
  const auto count = static_cast<std::uint64_t>(volumes_.size());
  const auto number = static_cast<std::uint64_t>(draw);
  const Permutation order(count, options_.seed, kOrder + number / count);
  Batch images = whole_volume(volumes_, static_cast<std::int64_t>(order(number % count)));
  const PhiloxWords coins = philox_4x32_10(options_.seed, kCoins, number);
  if (options_.swap && (coins.word[0] & 1u) != 0) {
    std::swap(images.at("moving"), images.at("target"));
    images.erase("momentum");
  }
  if (options_.mirror && (coins.word[1] & 1u) != 0) {
    for (auto& [name, image] : images) mirror_left_right(image, 0);
  }
  return images;
}

}  // namespace cinnabar
