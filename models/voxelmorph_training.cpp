#include "models/voxelmorph_training.hpp"

#include "autograd/elementwise.hpp"

namespace cinnabar {

VoxelmorphTraining::VoxelmorphTraining(Voxelmorph& network, VolumeSet training,
                                       std::optional<VolumeSet> validation,
                                       const VoxelmorphTrainingOptions& options)
    : Training(network, options),
      network_(network),
      draws_(std::move(training), options.draws),
      validation_(std::move(validation)),
      options_(options) {
  prepare(draws_.size(), options.batch_size, validation_.has_value());
}

Training::BatchLoss VoxelmorphTraining::loss_of(const ImagePair& pair) {
  const Variable moving(pair.moving), fixed(pair.fixed);
  const Variable velocity = network_.velocity(moving, fixed);
  return {voxelmorph_loss(moving, fixed, velocity, network_.options().squarings, options_.loss),
          dissimilarity(moving, fixed, options_.loss).value(), 1.0};
}

Training::BatchLoss VoxelmorphTraining::batch_loss(std::int64_t step) {
  const std::int64_t size = options_.batch_size;
  BatchLoss sum = loss_of(image_pair(draws_(step * size), device()));
  for (std::int64_t i = 1; i < size; ++i) {
    const BatchLoss one = loss_of(image_pair(draws_(step * size + i), device()));
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
    const BatchLoss one = loss_of(image_pair(whole_volume(*validation_, volume), device()));
    sums.loss += one.loss.value().item();
    sums.zero += one.zero.item();
    sums.numbers += one.numbers;
  }
  return sums;
}

}  // namespace cinnabar
