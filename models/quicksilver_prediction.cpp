#include "models/quicksilver_prediction.hpp"

#include <algorithm>

#include "autograd/layout.hpp"
#include "data/patch_grid.hpp"
#include "kernels/patches.hpp"

namespace cinnabar {

namespace {

constexpr const char* kOp = "predict_momentum";

void check_volumes(const Quicksilver& network, const Tensor& moving, const Tensor& target) {
  CINNABAR_CHECK(moving.defined() && target.defined(), kOp, "needs a moving and a target volume");
  const Shape& shape = target.shape();
  CINNABAR_CHECK(shape.rank() == 5 && shape[0] == 1 && shape[1] == 1 && shape.numel() > 0, kOp,
                 "volumes must be [1, 1, D, H, W], got ", shape);
  require_same_shape(kOp, moving, target);
  require_same_device(kOp, moving, target);
  require_same_device(kOp, network.parameters().front().value(), target);
}

/// A network in evaluation, with dropout on or off; afterwards in the mode it had, with dropout off.
class Evaluating {
 public:
  Evaluating(Quicksilver& network, bool dropout) : network_(network), was_training_(network.training()) {
    network_.eval();
    network_.sample(dropout);
  }
  ~Evaluating() {
    network_.train(was_training_);
    network_.sample(false);
  }
  Evaluating(const Evaluating&) = delete;
  Evaluating& operator=(const Evaluating&) = delete;

 private:
  Quicksilver& network_;
  bool was_training_;
};

}  // namespace

MomentumPredictor::MomentumPredictor(Quicksilver& network, const Tensor& moving, const Tensor& target,
                                     const PredictionOptions& options)
    : network_(network), options_(options) {
  check_volumes(network, moving, target);
  CINNABAR_CHECK(options.stride >= 1 && options.batch_size >= 1, kOp, "stride ", options.stride,
                 " and batch size ", options.batch_size, " must be positive");
  const NoGrad quiet;
  volumes_ = concat({Variable(moving), Variable(target)}, 1).value();
  const Shape& patch = network.options().patch;
  const Shape& shape = target.shape();
  const Tensor grid =
      grid_starts({shape[2], shape[3], shape[4]}, {patch, {options.stride, options.stride, options.stride}});
  starts_ = foreground_starts({moving, target}, grid, patch, {.skip_first = options.skip_first_patch})
                .to(target.device());
}

Tensor MomentumPredictor::run() {
  const NoGrad quiet;
  const Shape& patch = network_.options().patch;
  const Device device = volumes_.device();
  const Patches& kernels = patches_on(device);
  Tensor momentum = Tensor::zeros(volumes_.shape().with(1, 3), volumes_.dtype(), device);
  for (std::int64_t first = 0; first < patches(); first += options_.batch_size) {
    const Tensor starts = starts_.rows(first, std::min(options_.batch_size, patches() - first));
    Tensor cut = Tensor::empty({starts.shape(0), 2, patch[0], patch[1], patch[2]}, volumes_.dtype(), device);
    kernels.gather(volumes_, starts, cut);
    // Piece by piece has the same bits as all at once: every voxel adds its patches in the order of the list.
    kernels.scatter(network_(Variable(cut)).value(), starts, momentum);
    done_ += starts.shape(0);
    if (options_.observe) options_.observe(done_);
  }
  Tensor counts = Tensor::zeros(volumes_.shape().with(1, 1), volumes_.dtype(), device);
  kernels.count(starts_, patch, counts);
  kernels.average(counts, momentum);
  return momentum;
}

Tensor MomentumPredictor::predict() {
  const Evaluating quietly(network_, false);
  return run();
}

Tensor MomentumPredictor::sample() {
  const Evaluating dropping(network_, true);
  return run();
}

Tensor predict_momentum(Quicksilver& network, const Tensor& moving, const Tensor& target,
                        const PredictionOptions& options) {
  return MomentumPredictor(network, moving, target, options).predict();
}

}  // namespace cinnabar
