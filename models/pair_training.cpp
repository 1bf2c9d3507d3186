#include "models/pair_training.hpp"

#include "autograd/elementwise.hpp"

namespace cinnabar {

PairTraining::PairTraining(Module& network, VolumeSet training, std::optional<VolumeSet> validation,
                           const PairTrainingOptions& options, double loss_scale)
    : Training(network, options),
      draws_(std::move(training), options.draws),
      validation_(std::move(validation)),
      batch_size_(options.batch_size) {
  prepare(draws_.size(), batch_size_, validation_.has_value(), loss_scale);
}

Training::BatchLoss PairTraining::batch_loss(std::int64_t step) {
  const std::int64_t first = step * batch_size_;
  BatchLoss sum = pair_loss(draws_(first), first);
  for (std::int64_t draw = first + 1; draw < first + batch_size_; ++draw) {
    const BatchLoss one = pair_loss(draws_(draw), draw);
    sum.loss = sum.loss + one.loss;
    sum.zero = (Variable(sum.zero) + Variable(one.zero)).value();
    sum.numbers += one.numbers;
  }
  return sum;
}

std::optional<Training::LossSums> PairTraining::measure(const std::function<bool()>& keep_going) {
  const NoGrad quiet;
  LossSums sums;
  for (std::int64_t volume = 0; volume < validation_->size(); ++volume) {
    if (keep_going && !keep_going()) return std::nullopt;
    const BatchLoss one = pair_loss(whole_volume(*validation_, volume), std::nullopt);
    sums.loss += one.loss.value().item();
    sums.zero += one.zero.item();
    sums.numbers += one.numbers;
  }
  return sums;
}

}  // namespace cinnabar
