#include "models/voxelmorph_training.hpp"

#include <algorithm>

#include "autograd/elementwise.hpp"
#include "data/permutation.hpp"

namespace cinnabar {

namespace {

constexpr std::uint64_t kOrder = std::uint64_t{0x6F726472} << 32;  // streams of the seed
constexpr std::uint64_t kCoins = std::uint64_t{0x636F696E} << 32;

/// The two images of a volume, on the CPU.
ImagePair pair_of(const VolumeSet& volumes, std::int64_t volume) {
  const Tensor start = Tensor::from<std::int32_t>({static_cast<std::int32_t>(volume), 0, 0, 0}, {1, 4});
  const Batch images = volumes.gather(start, volumes.spatial(volume));
  return {images.at("moving"), images.at("target")};
}

void mirror_left_right(Tensor& image) {
  float* value = image.data<float>();
  const std::int64_t width = image.shape(4);
  for (std::int64_t row = 0; row < image.numel(); row += width)
    std::reverse(value + row, value + row + width);
}

}  // namespace

VoxelmorphTraining::VoxelmorphTraining(Voxelmorph& network, VolumeSet training,
                                       std::optional<VolumeSet> validation,
                                       const VoxelmorphTrainingOptions& options)
    : Training(network, options),
      network_(network),
      volumes_(std::move(training)),
      validation_(std::move(validation)),
      options_(options) {
  prepare(volumes_.size(), options.batch_size, validation_.has_value());
}

ImagePair VoxelmorphTraining::drawn(std::int64_t draw) const {
  const auto count = static_cast<std::uint64_t>(volumes_.size());
  const auto number = static_cast<std::uint64_t>(draw);
  const Permutation order(count, options_.seed, kOrder + number / count);
  ImagePair pair = pair_of(volumes_, static_cast<std::int64_t>(order(number % count)));
  const PhiloxWords coins = philox_4x32_10(options_.seed, kCoins, number);
  if (options_.swap && (coins.word[0] & 1u) != 0) std::swap(pair.moving, pair.fixed);
  if (options_.mirror && (coins.word[1] & 1u) != 0) {
    mirror_left_right(pair.moving);
    mirror_left_right(pair.fixed);
  }
  return pair;
}

Training::BatchLoss VoxelmorphTraining::loss_of(const ImagePair& pair) {
  const Variable moving(pair.moving.to(device())), fixed(pair.fixed.to(device()));
  const Variable velocity = network_.velocity(moving, fixed);
  return {voxelmorph_loss(moving, fixed, velocity, network_.options().squarings, options_.loss),
          dissimilarity(moving, fixed, options_.loss).value(), 1.0};
}

Training::BatchLoss VoxelmorphTraining::batch_loss(std::int64_t step) {
  const std::int64_t size = options_.batch_size;
  BatchLoss sum = loss_of(drawn(step * size));
  for (std::int64_t i = 1; i < size; ++i) {
    const BatchLoss one = loss_of(drawn(step * size + i));
    sum.loss = add(sum.loss, one.loss);
    sum.zero = add(Variable(sum.zero), Variable(one.zero)).value();
    sum.numbers += one.numbers;
  }
  return sum;
}

std::optional<Training::LossSums> VoxelmorphTraining::measure(const std::function<bool()>& keep_going) {
  const NoGrad quiet;
  LossSums sums;
  for (std::int64_t volume = 0; volume < validation_->size(); ++volume) {
    if (keep_going && !keep_going()) return std::nullopt;
    const BatchLoss one = loss_of(pair_of(*validation_, volume));
    sums.loss += one.loss.value().item();
    sums.zero += one.zero.item();
    sums.numbers += one.numbers;
  }
  return sums;
}

}  // namespace cinnabar
