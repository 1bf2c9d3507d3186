#include "models/quicksilver_training.hpp"

#include <algorithm>

#include "autograd/elementwise.hpp"
#include "autograd/green_operator.hpp"
#include "autograd/reduce.hpp"

namespace cinnabar {

namespace {

constexpr const char* kOp = "quicksilver_training";
constexpr double kFirstLossScale = 4096.0;  ///< L1's gradient is +-1 at the output, and fp16 ends at 65504

/// The loss of momenta that differ by `residual`.
Variable loss_of(const Variable& residual, const MomentumLossWeights& weights) {
  const Variable momentum = norm(residual, 1);
  if (weights.velocity == 0.0) return momentum;
  const Variable velocity = smooth(residual, weights.fluid, FftPadding::fast);
  return add(momentum, scale(sum(square(velocity)), weights.velocity));
}

}  // namespace

QuicksilverTraining::QuicksilverTraining(Quicksilver& network, VolumeSet training,
                                         std::optional<VolumeSet> validation,
                                         const QuicksilverTrainingOptions& options)
    : Training(network, options),
      network_(network),
      validation_(std::move(validation)),
      options_(options),
      patches_(std::make_shared<const QuicksilverPatches>(std::move(training), options.patches)),
      loader_([patches = patches_](std::int64_t step) { return (*patches)(step); },
              {.prefetch = options.prefetch, .device = device()}) {
  CINNABAR_CHECK(network.options().patch == options.patches.grid.patch, kOp, "patches of ",
                 options.patches.grid.patch, " for a network of ", network.options().patch);
  if (validation_) {
    validation_starts_ = quicksilver_places(*validation_, options.patches.grid);
    if (validation_starts_.shape(0) == 0) fail_input("the validation pairs are all background");
  }
  const bool scaled = network.options().precision == Conv3dPrecision::fp16;
  prepare(patches_->places(), options.patches.batch_size, validation_.has_value(),
          scaled ? kFirstLossScale : 0.0);
}

Training::BatchLoss QuicksilverTraining::batch_loss(std::int64_t) {
  const Batch batch = loader_.next();
  const Variable momentum(batch.at("momentum"));
  const Variable found = network_(Variable(batch.at("images")));
  return {loss_of(sub(found, momentum), options_.loss), loss_of(momentum, options_.loss).value(),
          static_cast<double>(momentum.value().numel())};
}

std::optional<Training::LossSums> QuicksilverTraining::measure(const std::function<bool()>& keep_going) {
  const NoGrad quiet;
  LossSums sums;
  const std::int64_t count = validation_starts_.shape(0), size = options_.patches.batch_size;
  for (std::int64_t first = 0; first < count; first += size) {
    if (keep_going && !keep_going()) return std::nullopt;
    const Tensor starts = validation_starts_.rows(first, std::min(size, count - first));
    const Batch batch = quicksilver_patches(*validation_, starts, options_.patches.grid.patch);
    const Variable momentum(batch.at("momentum").to(device()));
    const Variable found = network_(Variable(batch.at("images").to(device())));
    sums.loss += loss_of(sub(found, momentum), options_.loss).value().item();
    sums.zero += loss_of(momentum, options_.loss).value().item();
    sums.numbers += static_cast<double>(momentum.value().numel());
  }
  return sums;
}

void QuicksilverTraining::seek(std::int64_t step) {
  loader_.seek(step);
}

}  // namespace cinnabar
